"""Pilotlight's engine: lazy encoders, an idle offloader and memory readings, without a user interface.

    from engine import Engine

    with Engine() as engine:
        vectors = engine.dense("minilm").encode(["a pilot light"])

Importing this package imports no model library, and of its own modules only those of the names that are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.devices.readings import DeviceReading as DeviceReading, Reading as Reading
    from engine.encoders.availability import missing as missing
    from engine.engine import Engine as Engine
    from engine.errors import (
        CannotRest as CannotRest,
        Closed as Closed,
        DeviceLost as DeviceLost,
        EncoderError as EncoderError,
        FilesChanged as FilesChanged,
        InputTooLarge as InputTooLarge,
        InvalidInput as InvalidInput,
        LoadFailed as LoadFailed,
        MoveFailed as MoveFailed,
        NoRoom as NoRoom,
        NotFinite as NotFinite,
        OutOfMemory as OutOfMemory,
        PilotlightError as PilotlightError,
        Problem as Problem,
        QueueFull as QueueFull,
        SettingsError as SettingsError,
        SettingsForbidden as SettingsForbidden,
        Unavailable as Unavailable,
        UnknownEncoder as UnknownEncoder,
    )
    from engine.events import (
        Downloading as Downloading,
        SettingsApplied as SettingsApplied,
        SettingsRefused as SettingsRefused,
        StateChanged as StateChanged,
    )
    from engine.interface import EngineInterface as EngineInterface
    from engine.operations.axes import EncodeAxes as EncodeAxes, Projection as Projection
    from engine.operations.bundle import Bundle as Bundle, EncodeBundle as EncodeBundle
    from engine.operations.classify import Classification as Classification, Classify as Classify, ZeroShot as ZeroShot
    from engine.operations.dense import Embed as Embed, Encoding as Encoding
    from engine.operations.describe import Describe as Describe
    from engine.operations.image_text import EncodeImages as EncodeImages
    from engine.operations.multi import EncodeMulti as EncodeMulti, MultiEncoding as MultiEncoding
    from engine.operations.operation import Answer as Answer
    from engine.operations.plugin import Call as Call
    from engine.operations.rerank import (
        Ranking as Ranking,
        ReRank as ReRank,
        Score as Score,
        Scores as Scores,
        Splice as Splice,
        Spliced as Spliced,
    )
    from engine.operations.sparse import EncodeSparse as EncodeSparse, SparseVector as SparseVector
    from engine.operations.tag import Entity as Entity, Tag as Tag, Tagged as Tagged, Token as Token
    from engine.proxies.axes import AxesProxy as AxesProxy
    from engine.proxies.classify import ClassifyProxy as ClassifyProxy
    from engine.proxies.dense import DenseProxy as DenseProxy
    from engine.proxies.image_text import ImageTextProxy as ImageTextProxy
    from engine.proxies.multi import MultiProxy as MultiProxy
    from engine.proxies.plugin import PluginProxy as PluginProxy
    from engine.proxies.rerank import RerankProxy as RerankProxy
    from engine.proxies.sparse import SparseProxy as SparseProxy
    from engine.proxies.tag import TagProxy as TagProxy
    from engine.settings.config import (
        Axis as Axis,
        Config as Config,
        EncoderConfig as EncoderConfig,
        Hardware as Hardware,
        Hub as Hub,
        Server as Server,
    )
    from engine.settings.parsing import parse as parse
    from engine.state import EncoderView as EncoderView, Outcome as Outcome, Result as Result, State as State

_MODULES = {
    "engine.devices.readings": (
        "DeviceReading",
        "Reading",
    ),
    "engine.encoders.availability": ("missing",),
    "engine.engine": ("Engine",),
    "engine.errors": (
        "CannotRest",
        "Closed",
        "DeviceLost",
        "EncoderError",
        "FilesChanged",
        "InputTooLarge",
        "InvalidInput",
        "LoadFailed",
        "MoveFailed",
        "NoRoom",
        "NotFinite",
        "OutOfMemory",
        "PilotlightError",
        "Problem",
        "QueueFull",
        "SettingsError",
        "SettingsForbidden",
        "Unavailable",
        "UnknownEncoder",
    ),
    "engine.events": (
        "Downloading",
        "SettingsApplied",
        "SettingsRefused",
        "StateChanged",
    ),
    "engine.interface": ("EngineInterface",),
    "engine.operations.axes": (
        "EncodeAxes",
        "Projection",
    ),
    "engine.operations.bundle": (
        "Bundle",
        "EncodeBundle",
    ),
    "engine.operations.classify": (
        "Classification",
        "Classify",
        "ZeroShot",
    ),
    "engine.operations.dense": (
        "Embed",
        "Encoding",
    ),
    "engine.operations.describe": ("Describe",),
    "engine.operations.image_text": ("EncodeImages",),
    "engine.operations.multi": (
        "EncodeMulti",
        "MultiEncoding",
    ),
    "engine.operations.operation": ("Answer",),
    "engine.operations.plugin": ("Call",),
    "engine.operations.rerank": (
        "Ranking",
        "ReRank",
        "Score",
        "Scores",
        "Splice",
        "Spliced",
    ),
    "engine.operations.sparse": (
        "EncodeSparse",
        "SparseVector",
    ),
    "engine.operations.tag": (
        "Entity",
        "Tag",
        "Tagged",
        "Token",
    ),
    "engine.proxies.axes": ("AxesProxy",),
    "engine.proxies.classify": ("ClassifyProxy",),
    "engine.proxies.dense": ("DenseProxy",),
    "engine.proxies.image_text": ("ImageTextProxy",),
    "engine.proxies.multi": ("MultiProxy",),
    "engine.proxies.plugin": ("PluginProxy",),
    "engine.proxies.rerank": ("RerankProxy",),
    "engine.proxies.sparse": ("SparseProxy",),
    "engine.proxies.tag": ("TagProxy",),
    "engine.settings.config": (
        "Axis",
        "Config",
        "EncoderConfig",
        "Hardware",
        "Hub",
        "Server",
    ),
    "engine.settings.parsing": ("parse",),
    "engine.state": (
        "EncoderView",
        "Outcome",
        "Result",
        "State",
    ),
}
"""Each public name's module, which is imported when the name is first used (PEP 562)."""

_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__

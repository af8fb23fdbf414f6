"""Pilotlight's engine: lazy encoders, an idle offloader and memory readings, without a user interface.

    from engine import Engine

    with Engine() as engine:
        vectors = engine.dense("minilm").encode(["a pilot light"])

Importing this package imports no model library.
"""

from engine.engine import Engine
from engine.errors import (
    Closed,
    EncoderError,
    InvalidInput,
    LoadFailed,
    NoRoom,
    OutOfMemory,
    PilotlightError,
    QueueFull,
    SettingsError,
    Unavailable,
    UnknownEncoder,
)
from engine.operations.bundle import Bundle
from engine.operations.classify import Classification
from engine.operations.multi import MultiEncoding
from engine.operations.rerank import Spliced
from engine.operations.sparse import SparseVector
from engine.operations.tag import Entity, Tagged, Token
from engine.proxies.axes import AxesProxy
from engine.proxies.classify import ClassifyProxy
from engine.proxies.dense import DenseProxy
from engine.proxies.image_text import ImageTextProxy
from engine.proxies.multi import MultiProxy
from engine.proxies.plugin import PluginProxy
from engine.proxies.rerank import RerankProxy
from engine.proxies.sparse import SparseProxy
from engine.proxies.tag import TagProxy
from engine.settings.config import Axis, Config, EncoderConfig, Hardware, Hub, Server
from engine.settings.parsing import parse
from engine.state import EncoderView, Outcome, State

__all__ = [
    "AxesProxy",
    "Axis",
    "Bundle",
    "Classification",
    "ClassifyProxy",
    "Closed",
    "Config",
    "DenseProxy",
    "EncoderConfig",
    "EncoderError",
    "EncoderView",
    "Engine",
    "Entity",
    "Hardware",
    "Hub",
    "ImageTextProxy",
    "InvalidInput",
    "LoadFailed",
    "MultiEncoding",
    "MultiProxy",
    "NoRoom",
    "OutOfMemory",
    "Outcome",
    "PilotlightError",
    "PluginProxy",
    "QueueFull",
    "RerankProxy",
    "Server",
    "SettingsError",
    "SparseProxy",
    "SparseVector",
    "Spliced",
    "State",
    "TagProxy",
    "Tagged",
    "Token",
    "Unavailable",
    "UnknownEncoder",
    "parse",
]

"""Pilotlight's engine: lazy encoders, an idle offloader and memory readings, without a user interface.

    from engine import Engine

    with Engine() as engine:
        vectors = engine.dense("minilm").encode(["a pilot light"])

Importing this package imports no model library.
"""

from engine.config import Axis, Config, EncoderConfig, Hardware, Hub, Server
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
from engine.parsing import parse
from engine.proxies.dense import DenseProxy
from engine.state import EncoderView, Outcome, State

__all__ = [
    "Axis",
    "Closed",
    "Config",
    "DenseProxy",
    "EncoderConfig",
    "EncoderError",
    "EncoderView",
    "Engine",
    "Hardware",
    "Hub",
    "InvalidInput",
    "LoadFailed",
    "NoRoom",
    "OutOfMemory",
    "Outcome",
    "PilotlightError",
    "QueueFull",
    "Server",
    "SettingsError",
    "State",
    "Unavailable",
    "UnknownEncoder",
    "parse",
]

"""Pilotlight's engine: lazy encoders, an idle offloader and memory readings, without a user interface.

    from engine import Engine

    with Engine() as engine:
        vectors = engine.dense("minilm").encode(["a pilot light"])

Importing this package imports no model library.
"""

from engine.config import Config, EncoderConfig, Hardware, Server, parse
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
from engine.proxies import DenseProxy
from engine.state import EncoderView, Outcome, State

__all__ = [
    "Closed",
    "Config",
    "DenseProxy",
    "EncoderConfig",
    "EncoderError",
    "EncoderView",
    "Engine",
    "Hardware",
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

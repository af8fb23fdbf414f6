"""The settings that hold for one encoder: its own table over `[hardware]`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from engine.settings.config import EncoderConfig, Hardware


@dataclass(frozen=True, slots=True)
class Timeouts:
    """When an encoder steps down: seconds on its device without use, then seconds in RAM; 0 = never."""

    idle_timeout_seconds: float
    unload_timeout_seconds: float
    max_keep_alive_seconds: float = 0.0
    """The longest that a request's keep_alive may take the place of the idle timeout; 0 = as long as it asks for."""

    def bounded(self, keep_alive: float | None) -> float | None:
        """Return `keep_alive`, bounded by the longest that is allowed."""
        if keep_alive is None or not self.max_keep_alive_seconds:
            return keep_alive
        return self.max_keep_alive_seconds if keep_alive < 0 else min(keep_alive, self.max_keep_alive_seconds)


class Eagerness(Enum):
    """The rung that an encoder goes up to at start without being used."""

    LAZY = auto()
    """It loads on its first use."""
    TO_RAM = auto()
    """It is read into RAM, and goes up to its device at the first use."""
    TO_DEVICE = auto()
    """It goes to its device."""


@dataclass(frozen=True, slots=True)
class Effective:
    """The values in force for one encoder; no key is left open."""

    device: str
    """auto | cpu | cuda | cuda:N | mps."""
    stream_layers: bool
    lazy_encoders: bool
    eager_load: bool
    eagerness: Eagerness
    timeouts: Timeouts

    @classmethod
    def of(cls, encoder: EncoderConfig, hardware: Hardware) -> Effective:
        """Return the values for `encoder`; those that its own table leaves out come from `hardware`."""

        def value(key: str) -> Any:
            own = getattr(encoder, key)
            return getattr(hardware, key) if own is None else own

        return cls(
            device=value("device"),
            stream_layers=value("stream_layers"),
            lazy_encoders=value("lazy_encoders"),
            eager_load=value("eager_load"),
            eagerness=_eagerness(encoder, lazy=value("lazy_encoders"), eager_load=value("eager_load")),
            timeouts=Timeouts(
                idle_timeout_seconds=value("idle_timeout_seconds"),
                unload_timeout_seconds=value("unload_timeout_seconds"),
                max_keep_alive_seconds=hardware.max_keep_alive_seconds,
            ),
        )


def _eagerness(encoder: EncoderConfig, *, lazy: bool, eager_load: bool) -> Eagerness:
    """Return how far up `encoder` goes at start.

    One whose home is the disk is not read into RAM, since nothing of it may wait there; nor are axes, whose reading
    would bring their base to its device.
    """
    if not lazy:
        return Eagerness.TO_DEVICE
    return Eagerness.TO_RAM if eager_load and encoder.home != "disk" and encoder.kind != "axes" else Eagerness.LAZY

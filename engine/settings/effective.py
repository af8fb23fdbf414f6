"""What the settings and the requests may ask of an encoder's timers."""

from __future__ import annotations

from dataclasses import dataclass

from engine.settings.config import EncoderConfig, Hardware


@dataclass(frozen=True, slots=True)
class Terms:
    """When an encoder steps down: seconds on its device without use, then seconds in RAM; 0 = never."""

    idle_timeout_seconds: float
    unload_timeout_seconds: float
    max_keep_alive_seconds: float = 0.0
    """The longest that a request's keep_alive may take the place of the idle timeout; 0 = as long as it asks for."""

    def bounded(self, keep_alive: float | None) -> float | None:
        """Return the `keep_alive` that counts."""
        if keep_alive is None or not self.max_keep_alive_seconds:
            return keep_alive
        return self.max_keep_alive_seconds if keep_alive < 0 else min(keep_alive, self.max_keep_alive_seconds)


def terms_of(encoder: EncoderConfig, hardware: Hardware) -> Terms:
    """Return what holds for `encoder`; what its own table leaves out comes from `hardware`."""
    idle, unload = encoder.idle_timeout_seconds, encoder.unload_timeout_seconds
    return Terms(
        idle_timeout_seconds=hardware.idle_timeout_seconds if idle is None else idle,
        unload_timeout_seconds=hardware.unload_timeout_seconds if unload is None else unload,
        max_keep_alive_seconds=hardware.max_keep_alive_seconds,
    )

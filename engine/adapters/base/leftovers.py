"""Memory after a step down: what came free, and weights that did not because something else refers to them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from engine.devices import DeviceMemory, memory

if TYPE_CHECKING:
    from engine.weights.home import Home

_log = logging.getLogger(__name__)


class Leftovers:
    """The closed homes of one adapter whose weights did not come free."""

    def __init__(self) -> None:
        self._homes: list[Home] = []

    def add(self, home: Home) -> None:
        """Watch a home that was closed until its weights are gone."""
        self._homes.append(home)

    def gone(self) -> bool:
        """Return whether all weights are gone, and their files no longer mapped."""
        for home in self._homes:
            home.forget_files()
        self._homes = [home for home in self._homes if not home.gone]
        return not self._homes

    @property
    def on_device(self) -> int:
        """Bytes that are still on a device."""
        return sum(home.left for home in self._homes)

    @property
    def in_ram(self) -> int | None:
        """Bytes that are still in RAM; None = unknown."""
        known = [home.remains() for home in self._homes]
        return None if None in known else sum(filter(None, known))


def log_freed(name: str, device: str, expected: int | None, before: DeviceMemory | None) -> None:
    """Log the memory that the allocator and the driver have now, beside the bytes that left the device.

    Other encoders compute meanwhile, so the figures are evidence for a reader of the log and no verdict.
    """
    now = memory(device)
    if before is not None and now is not None:
        _log.info(
            "%s left %s: %s bytes of weights; torch held %s and holds %s, the driver had %s free and has %s",
            name,
            device,
            expected,
            before.ours,
            now.ours,
            before.free,
            now.free,
        )

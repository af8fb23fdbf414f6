"""How much memory an encoder's weights take, and where."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Footprint:
    """Where an encoder's weights are resident, in bytes; `total` is their nominal size.

    On a CPU the device is RAM too: weights that compute there count as `on_device`, weights at rest as `in_ram`.
    """

    on_device: int
    in_ram: int
    total: int

    @property
    def held(self) -> int:
        """Resident bytes, wherever they are."""
        return self.on_device + self.in_ram

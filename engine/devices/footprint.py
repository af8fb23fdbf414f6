"""How much memory an encoder's weights take, and where."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Footprint:
    """Where an encoder's weights are resident, in bytes, None where nobody says; `total` is nominal.

    On a CPU the device is RAM too: weights that compute there count as `on_device`, weights at rest as `in_ram`. What
    is kept in RAM on every rung (buffers that no file has, a pinned copy) counts as `in_ram` everywhere; what a device
    did not get back, because something still refers to it, as `on_device`.
    """

    on_device: int | None
    in_ram: int | None
    total: int | None

    @property
    def held(self) -> int | None:
        """Resident bytes, wherever they are."""
        return None if self.on_device is None or self.in_ram is None else self.on_device + self.in_ram


NOTHING = Footprint(0, 0, 0)
UNKNOWN = Footprint(None, None, None)

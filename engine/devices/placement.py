"""The placement of an encoder's weights: their needs, their target and their footprint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CPU: Final = "cpu"
"""The device that every computer has; an encoder that computes there has its weights in RAM."""


@dataclass(frozen=True, slots=True)
class Needs:
    """The bytes that the weights of one loaded encoder would take on the device that it prefers."""

    device: str
    """torch's name of that device."""
    whole: int
    """All weights at once."""
    least: int | None = None
    """Streamed, with no block resident; None if they cannot or must not be streamed."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A device for the weights, which go there whole or are streamed block by block within a limit."""

    device: str
    streamed_in: int | None = None
    """Bytes that the weights may take on the device at once; None = all of them are there."""
    reason: str | None = None
    """The note for the user when this is not the device that the encoder prefers."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """The resident bytes of an encoder's weights by place, None if unknown; `total` is nominal.

    On a CPU the device is RAM too: weights in use count as `on_device`, offloaded weights as `in_ram`. Memory that is
    kept in RAM on every rung (buffers that no file has, a pinned copy) counts as `in_ram` everywhere; device memory
    that could not be freed, because something still refers to it, counts as `on_device`.
    """

    on_device: int | None
    in_ram: int | None
    total: int | None

    @property
    def held(self) -> int | None:
        """Resident bytes on the device and in RAM together."""
        return None if self.on_device is None or self.in_ram is None else self.on_device + self.in_ram


NOTHING = Footprint(0, 0, 0)
UNKNOWN = Footprint(None, None, None)

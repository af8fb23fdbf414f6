"""What a slot asks of an adapter, whatever library stands behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from engine.config import EncoderConfig


@dataclass(frozen=True, slots=True)
class Footprint:
    """Where an encoder's weights are resident, in bytes; `total` is their nominal size."""

    on_device: int
    in_ram: int
    total: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a finished load reports; durations in seconds."""

    device: str
    revision: str | None
    import_seconds: float
    """Importing the model library; close to zero from the second load on."""
    load_seconds: float
    """Reading the model and bringing it to its device."""


class Adapter(Protocol):
    """One model through its library; the slot calls one of these methods at a time, under no lock.

    A kind adds its own operations (`encode` and so on), called only under a lease.
    """

    rests_in_ram: bool
    """Whether `offload` can leave the weights in RAM on the device they were loaded to; read after `load`."""

    def __init__(self, config: EncoderConfig, device: str) -> None:
        """Keep the configuration; import and read nothing."""

    def probe(self) -> None:
        """Raise Unavailable when a package or file is missing; import nothing."""

    def load(self) -> Loaded:
        """Bring the weights from disk to the device; on an error nothing stays behind."""

    def offload(self) -> None:
        """Move the weights from the device to RAM."""

    def resume(self) -> None:
        """Move the weights from RAM to the device."""

    def unload(self) -> None:
        """Drop everything and give the memory back to the system; also after a failed move."""

    def footprint(self) -> Footprint:
        """Return where the weights are now; all zero when unloaded."""

"""The protocol between a slot and an adapter, the same for every model library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.adapters.context import AdapterContext
from engine.devices.placement import Footprint, Needs, Placement
from engine.settings.config import EncoderConfig
from engine.state import Download


@dataclass(frozen=True, slots=True)
class Loaded:
    """The report of a finished load; durations in seconds."""

    device: str
    """The device that the weights were read for, by torch's name."""
    revision: str | None
    import_seconds: float
    """Importing the model library; close to zero from the second load on."""
    load_seconds: float
    """Reading the model."""
    streamable: bool | None = None
    """Whether the model has blocks that can be streamed; None = unknown."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Facts about the model, as plain data: `dimension`, `max_tokens`, `labels`, ..."""
    note: str | None = None
    """The reason why the device is not the one of the settings; None when it is."""
    assumptions: tuple[str, ...] = ()
    """Sentences for the user: properties of the model that its files do not state, and the value that was taken."""


class Adapter(Protocol):
    """One model through its library; its slot calls one method at a time, under no lock.

    Five only look, and may be called at any time from any thread: `probe`, `footprint`, `stale`, `mended`, `download`.
    A kind adds its own operations (`encode` and so on), which are called only under a lease.
    """

    @property
    def cannot_rest(self) -> str | None:
        """The reason, for the user, why the weights cannot stay in RAM; None when they can. Read after `load`."""

    @property
    def revision(self) -> str | None:
        """A name that changes whenever the answers may change; as in `Loaded`. Read after `load`."""

    @property
    def download(self) -> Download | None:
        """Progress of the download that `load` is waiting for; None while there is none."""

    def __init__(self, config: EncoderConfig, device: str, context: AdapterContext) -> None:
        """Keep the configuration; import and read nothing."""

    def probe(self) -> None:
        """Raise Unavailable when a package or file is missing; import nothing."""

    def load(self, on: str | None = None) -> Loaded:
        """Bring the weights from disk to RAM, pages only as they are needed; after an error `unload` is called.

        They are read for the device of the settings, or for `on`, by torch's name.
        """

    def needs(self) -> Needs:
        """Return the bytes that the weights would take on the device of the settings; read after `load`.

        They stay known after a `load` for another device.
        """

    def fault_in(self) -> None:
        """Read all the weights into RAM now; only into the system's file cache if they will be streamed on a CPU."""

    def resume(self, placement: Placement) -> str | None:
        """Bring the weights from RAM to the device that they were read for, whole or streamed.

        Returns a note for the user, or None. Raises OutOfMemory and leaves them in RAM if they do not fit.
        """

    def stale(self) -> str | None:
        """Return the change of the weights' files since the load, in words; None for no change. Touches no weight."""

    def mended(self) -> str | None:
        """Return the change since the last load that may let another one end otherwise, in words; None for no change.

        Called after a load that failed. It looks at the names, sizes and times of the files that a load
        reads, at what is installed, and at the settings that need no new adapter.
        """

    def offload(self) -> Footprint:
        """Take the weights from the device to RAM; returns their footprint right before.

        All of their memory on the device should come free. Raises CannotRest when they would not survive in RAM.
        """

    def unload(self) -> bool:
        """Drop everything and give the memory back to the system; also after a failed load or move.

        Returns whether all of it is gone: no tensor is still referred to, and no file is mapped any more.
        """

    def footprint(self) -> Footprint:
        """Return the bytes of the weights by place, with those that `unload` could not free."""

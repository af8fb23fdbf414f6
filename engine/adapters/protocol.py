"""What a slot asks of an adapter, whatever library stands behind it."""

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
    """What a finished load reports; durations in seconds."""

    device: str
    """Which device the weights were read for."""
    revision: str | None
    import_seconds: float
    """Importing the model library; close to zero from the second load on."""
    load_seconds: float
    """Reading the model."""
    streamable: bool | None = None
    """Whether the model has blocks that can be streamed; None where nobody looked."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What there is to know of the model, as plain data: `dimension`, `max_tokens`, `labels`, ..."""
    note: str | None = None
    """Why the device is not the one that the settings ask for, None when it is."""


class Adapter(Protocol):
    """One model through its library; the slot calls one of these methods at a time, under no lock.

    Three are pure looks and may be called at any time from any thread: `footprint`, `stale` and `download`. A kind
    adds its own operations (`encode` and so on), called only under a lease.
    """

    @property
    def cannot_rest(self) -> str | None:
        """Why `offload` cannot leave the weights in RAM, in words for a person; None when it can. Read after `load`."""

    @property
    def revision(self) -> str | None:
        """What tells the answers of these weights from those of others; as in `Loaded`. Read after `load`."""

    @property
    def download(self) -> Download | None:
        """How far `load` is with fetching files from a model hub; None while it fetches none."""

    def __init__(self, config: EncoderConfig, device: str, context: AdapterContext) -> None:
        """Keep the configuration; import and read nothing."""

    def probe(self) -> None:
        """Raise Unavailable when a package or file is missing; import nothing."""

    def load(self, on: str | None = None) -> Loaded:
        """Bring the weights from disk to RAM, pages only as they are needed; after an error `unload` is called.

        They are read for the device that the encoder wishes for, or for `on`, by torch's name.
        """

    def needs(self) -> Needs:
        """Return what the weights would take on the device that the encoder wishes for; read after `load`.

        It stays known after a `load` for another device.
        """

    def fault_in(self) -> None:
        """Read all the weights into RAM now; those that will be streamed on a CPU into the system's file cache only."""

    def resume(self, placement: Placement) -> str | None:
        """Bring the weights from RAM to the device that they were read for, whole or streamed.

        Returns what a person should know about it. Raises OutOfMemory and leaves them in RAM where they do not fit.
        """

    def stale(self) -> str | None:
        """Say what happened to the weights' files since they were loaded, None for nothing; touches no weight."""

    def offload(self) -> Footprint:
        """Take the weights from the device to RAM; returns where they were right before.

        All that was on the device should come free. Raises CannotRest when they would not survive in RAM.
        """

    def unload(self) -> bool:
        """Drop everything and give the memory back to the system; also after a failed load or move.

        Returns whether all of it is gone: nothing that somebody still refers to, no file mapped any more.
        """

    def footprint(self) -> Footprint:
        """Return where the weights are now; also what `unload` could not give back."""

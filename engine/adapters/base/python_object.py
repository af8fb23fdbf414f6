"""The base of adapters of plain Python objects: loaded whole, kept in RAM, dropped whole."""

from __future__ import annotations

import logging
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

from engine.adapters.base.conditions import Conditions
from engine.adapters.base.hopeless import unavailable
from engine.adapters.context import DETACHED, AdapterContext
from engine.adapters.packages import require
from engine.adapters.protocol import Loaded
from engine.devices.placement import CPU, Footprint, Needs, Placement
from engine.errors import CannotRest, clear_frames
from engine.settings.config import EncoderConfig
from engine.state import Download
from engine.weights.files.identity import Identity
from engine.weights.release import freeze_gc, release

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Unreleased:
    """An object that was dropped but may still be in memory, and its bytes (None = unknown)."""

    held: weakref.ref[Any]
    nbytes: int | None


class ObjectAdapter(ABC):
    """One Python object that computes in RAM and cannot be offloaded; a kind adds `_load` and its computation."""

    packages: ClassVar[tuple[str, ...]] = ()
    """Packages that must be installed, by the names that are imported."""
    cannot_rest: str | None = "It computes in RAM, so there is nowhere to step down to: it is unloaded."
    """The reason why it is unloaded when idle, as the user reads it."""

    def __init__(self, config: EncoderConfig, device: str, context: AdapterContext = DETACHED) -> None:
        """Keep the configuration; import and read nothing."""
        self._config = config
        self._context = context
        self._held: Any = None
        self._device = CPU
        self._nbytes_held: int | None = 0
        self._revision: str | None = None
        self._sources: tuple[Identity, ...] = ()
        self._conditions = Conditions(context.offline)
        self._waits = True
        """Whether the object was loaded but not yet used."""
        self._left: list[_Unreleased] = []

    # For a kind to override

    @abstractmethod
    def _load(self) -> Any:
        """Return the object, ready to compute; raises LoadFailed or Unavailable."""

    def _find(self) -> None:  # noqa: B027 - not every kind has to
        """Raise Unavailable when something that `_load` needs is missing; imports nothing."""

    def _import_library(self) -> None:  # noqa: B027 - not every kind has to
        """Import what `_load` needs; an ImportError becomes Unavailable."""

    def _files(self) -> Iterable[Path]:
        """Return the files that the object is read from."""
        return ()

    def _folders(self) -> Iterable[Path]:
        """Return the folders, or single files, whose contents decide whether it can be loaded."""
        return ()

    def _nbytes(self, held: Any) -> int | None:
        """Return the bytes that the object takes; None = unknown."""
        return None

    def _revision_of(self, held: Any) -> str | None:
        """Return a name that changes whenever its answers may change; None = unknown."""
        return None

    def _metadata(self, held: Any) -> dict[str, Any]:
        """Return facts about it, as plain data for JSON."""
        return {}

    def _device_of(self, held: Any) -> str:
        """Return the device that it computes on, by torch's name."""
        return CPU

    def _outgrown(self, held: Any) -> str | None:
        """Return in words why it must be made again, from the size of what it has kept of its uses; None = need not."""
        return None

    def _close(self, held: Any) -> None:  # noqa: B027 - not every kind has to
        """Tell the object that it is about to be dropped."""

    def _dies(self, held: Any) -> bool:
        """Whether this adapter alone refers to the object, so that dropping it frees it."""
        return True

    # For the slot

    @property
    @final
    def download(self) -> Download | None:
        """None: nothing is fetched."""
        return None

    @property
    @final
    def revision(self) -> str | None:
        """A name that changes whenever the answers may change; None = unknown. Read after `load`."""
        return self._revision

    @final
    def probe(self) -> None:
        """Raise Unavailable when a package or a file is missing; imports nothing."""
        require(*self.packages)
        self._find()

    @final
    def load(self, on: str | None = None) -> Loaded:
        """Make the object, which chooses its device itself; raises Unavailable, or any other error of its library."""
        began = time.monotonic()
        self._conditions.note(*self._folders())
        try:
            self._import_library()
        except ImportError as error:
            final = unavailable(self._config.name, error)
            if final is None:
                raise
            raise final from error
        # Before the object exists: frozen objects are never collected.
        freeze_gc()
        imported = time.monotonic()
        self._sources = tuple(Identity.of(file) for file in self._files())
        self._waits = True
        self._held = held = self._load()
        self._device = self._device_of(held)
        self._nbytes_held = self._nbytes(held)
        self._revision = self._revision_of(held)
        return Loaded(
            device=self._device,
            revision=self._revision,
            import_seconds=imported - began,
            load_seconds=time.monotonic() - imported,
            metadata=self._metadata(held),
        )

    @final
    def needs(self) -> Needs:
        """Return the bytes that it still needs on its device: 0 on a GPU, where it is already."""
        return Needs(self._device, (self._nbytes_held or 0) if self._device == CPU else 0)

    @final  # noqa: B027 - there is nothing to do
    def fault_in(self) -> None:
        """Do nothing: all of it is in RAM."""

    @final
    def resume(self, placement: Placement) -> str | None:
        """Note that it is in use; nothing is moved."""
        self._waits = False
        return None

    @final
    def stale(self) -> str | None:
        """Return the change of its files or of its size since it was loaded, in words; None for no change."""
        changed = next(filter(None, (source.changed() for source in self._sources)), None)
        held = self._held
        return changed or (None if held is None else self._outgrown(held))

    @final
    def mended(self) -> str | None:
        """Return the change since the last load that may let another one end otherwise, in words; None for none."""
        return self._conditions.change()

    @final
    def offload(self) -> Footprint:
        """Raise CannotRest."""
        raise CannotRest(self.cannot_rest or "")

    @final
    def unload(self) -> bool:
        """Drop the object, give the memory back, and return whether it is gone."""
        held, self._held = self._held, None
        self._sources = ()
        try:
            if held is not None:
                self._close(held)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the adapter edge: the object is dropped all the same
            _log.exception("%s did not end cleanly", self._config.name)
            clear_frames(error)  # its frames refer to the object, and a log may keep them
        if held is not None and self._dies(held) and (reference := _weak(held)) is not None:
            self._left.append(_Unreleased(reference, self._nbytes_held))
        del held
        release()
        if not self._gone():
            release(thoroughly=True)
        return self._gone()

    @final
    def footprint(self) -> Footprint:
        """Return its bytes, as far as it reports them, with those of dropped objects that are still in memory."""
        left = [dropped.nbytes for dropped in self._left if dropped.held() is not None]
        own = 0 if self._held is None else self._nbytes_held
        size = _sum([own, *left])
        if size is None:
            return Footprint(None, None, own)
        waits = self._held is not None and self._waits and self._device == CPU
        return Footprint(0 if waits else size, size if waits else 0, own)

    def _gone(self) -> bool:
        self._left = [dropped for dropped in self._left if dropped.held() is not None]
        return not self._left


def _weak(held: Any) -> weakref.ref[Any] | None:
    try:
        return weakref.ref(held)
    except TypeError:  # a list, or a class with slots
        return None


def _sum(sizes: list[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None

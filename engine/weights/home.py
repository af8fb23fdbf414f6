"""Where one module's weights live: in mappings of its files, so that stepping down and coming back copy nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping as Table, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.devices.placement import CPU, Footprint, Placement
from engine.errors import CannotRest, FilesChanged, first_line
from engine.weights.files import file_cache
from engine.weights.files.file_backing import AUTO, FileBacking
from engine.weights.files.identity import Identity
from engine.weights.files.inventory import Inventory, Region, take_inventory
from engine.weights.files.mapping import warm_cache
from engine.weights.files.matching import Found
from engine.weights.files.pages import Usage
from engine.weights.files.store import Store
from engine.weights.moves.blocks import Blocks, find_blocks
from engine.weights.moves.device_copy import DeviceCopy, copy_size
from engine.weights.moves.paging import Paging
from engine.weights.moves.pinned_copy import PinnedCopy
from engine.weights.moves.staging import Piece, Source, Uploader
from engine.weights.moves.streaming import Stream

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

MAPPED, PINNED, DISK = "mapped", "pinned", "disk"

_WRITES: Final = "It writes into its own weights, so when idle it is unloaded; what it wrote is kept."
_ON_DISK: Final = "Its home is the disk, so stepping down unloads it."


class Home:
    """The weights of one module, as views of copy-on-write mappings of its files.

    Where a file holds a tensor as the module uses it, that is the file itself; for the others (another element type,
    renamed or fused by the library, pickled) one converted file is written into the store. When that fails they stay
    in plain memory, and `cannot_rest` says why. Buffers that no file has stay as the library made them.
    """

    def __init__(
        self,
        module: Any,
        sources: Sequence[Identity],
        store: Store,
        *,
        device: str,
        made_by: str,
        dtype: str = AUTO,
        keep: str = MAPPED,
        known: Found | None = None,
    ) -> None:
        """Adopt `module`, which is on the CPU.

        `sources` are its weights files as they were before it was read, `made_by` the libraries and the configuration
        that read it (others may read it otherwise); `device` is where it will compute, and `dtype` in what: auto (as
        it is, on a CPU half precision as float32) or torch's name of a floating type. `keep` says where the weights
        wait for a device: mapped | pinned (in a copy of ours) | disk (nowhere). `known` is what an earlier home of the
        same files has `found`. Raises LoadFailed when a file changed meanwhile.
        """
        seen = take_inventory(module)
        self.cannot_rest: str | None = None
        """Why the weights would not survive or not shrink in RAM; None when they can rest there."""
        self._module = module
        self._sources = tuple(sources)
        self._regions = seen.regions
        self._loose = seen.loose
        self._device = device
        self._keep = keep
        self._backing = FileBacking(store, device=device, dtype=dtype)
        self._uploader: Uploader | None = None
        self._pinned: PinnedCopy | None = None
        self._unpinned: str | None = None
        """Why there is no pinned copy although there shall be one."""
        self._computing = False
        self._way: DeviceCopy | Stream | Paging | None = None
        """What lets the module compute, where that is not the mapping alone."""
        self._ended: list[DeviceCopy | Stream | Paging] = []
        self._written: dict[str, torch.Tensor] = {}
        try:
            self._adopt(seen, known or {}, made_by)
        except BaseException:
            self.close()
            raise

    def _adopt(self, seen: Inventory, known: Found, made_by: str) -> None:
        import torch

        self._refuse_stale()
        self._backing.assign(seen, self._sources, known, made_by)
        self._plain = sum(s.flat.nbytes for s in self._regions if s.name not in self.found)
        self._beside = sum(t.tensor.nbytes for t in self._loose if t.tensor.layout is torch.strided)
        self.total = self._beside + sum(region.flat.nbytes for region in self._regions)
        self._refuse_stale()
        # Where the device is elsewhere plain memory is a place to rest like any other.
        if self._on_cpu and (problem := self._backing.problem):
            self.cannot_rest = f"Its weights are in plain memory, so when idle it is unloaded: {problem}."
        else:
            # Finding the places has touched every page; the first use takes those that it needs.
            self._backing.give_back()
        if self._keep == DISK:
            self.cannot_rest = _ON_DISK

    # Looking

    @property
    def found(self) -> dict[str, tuple[Path, str]]:
        """Region -> the file, and the tensor in it, that holds its bytes."""
        return self._backing.found

    def stale(self) -> str | None:
        """Say what happened to one of its files since, None for nothing; a stat per file, no page is touched."""
        files = (*self._sources, *self._backing.files)
        return next((changed for file in files if (changed := file.changed())), None)

    def needs(self) -> tuple[int, int | None]:
        """Return the bytes that the weights take on their device: all at once, and streamed, None if they cannot be."""
        blocks = self._blocks()
        least = blocks.least(self._loose)
        if not self._on_cpu:
            return copy_size(self._regions, self._loose), least
        # Pages come again from a file alone: blocks in plain memory stay in RAM whether they run or not.
        pageable = any(region.name in self.found for block in blocks.blocks for region in block.regions)
        return self.total, least if pageable else None

    def footprint(self) -> Footprint:
        """Return the resident bytes at this instant as the system counts them."""
        return self._footprint(self._backing.usage().resident)

    def remains(self) -> int | None:
        """Return the resident bytes of the mappings that are still there after `close`."""
        return self._backing.usage().resident

    @property
    def left(self) -> int:
        """Bytes on the device that did not come free with what ended there, because something else refers to them."""
        self._ended = [way for way in self._ended if way.nbytes]
        return sum(way.nbytes for way in self._ended)

    @property
    def gone(self) -> bool:
        """Whether, after `close`, none of its files is mapped any more and nothing of it is on a device."""
        return all(mapping.gone for mapping in self._backing.mappings) and not self.left

    # Moving

    def fault_in(self) -> None:
        """Read every page of the files now; raises OSError."""
        for mapping in self._backing.mappings:
            mapping.read_in()

    def warm_cache(self) -> None:
        """Read the files into the system's cache, and nothing of them into this process; raises OSError."""
        for mapping in self._backing.mappings:
            warm_cache(mapping.identity.path)

    def to_device(self, placement: Placement) -> str | None:
        """Let the module compute: on copies that are on its device, on a CPU on the mapped pages themselves.

        Returns what a person should know about it. An error, such as the device's lack of memory, leaves the module
        as it was.
        """
        if not self._on_cpu:
            self._uploader = self._uploader or Uploader.of(self._device)
            self._way = self._sent(self._uploader, placement.streamed_in)
            if _would_lose(self._backing.usage()) is None:
                try:
                    self._backing.give_back()
                except OSError as error:  # the module computes all the same
                    _log.warning("the pages of its files stay in RAM: %s", error)
        elif placement.streamed_in is not None:
            self._way = Paging(self._blocks(), placement.streamed_in, self._backing.place_of)
        self._computing = True
        notes = (self._unpinned, self._way.note if self._way else None)
        return " ".join(filter(None, notes)) or None

    def offload(self) -> Footprint:
        """Take the weights off their device and give the pages back, which the next use takes from the file again.

        Returns where they were before. Raises CannotRest when they are not all in files (on a CPU), when the module
        has written into them or when their home is the disk; OSError when the system refuses.
        """
        usage = self._backing.usage()
        before = self._footprint(usage.resident)
        self._come_down()
        if self.cannot_rest is None:
            self.cannot_rest = _WRITES if self._written else _would_lose(usage)
        if self.cannot_rest is not None:
            raise CannotRest(self.cannot_rest)
        self._backing.give_back()
        self._computing = False
        return before

    def writes(self) -> dict[str, torch.Tensor]:
        """Return copies of what the module has written into: region -> its elements, (n,); empty for most.

        Into plain memory only those writes count that torch knows of, because there is no file to compare with.
        """
        self._come_down()
        if self.stale():
            return {}
        changed = (s for s in self._regions if s.rebound() or (s.written() and s.name not in self.found))
        written = {region.name: region.as_it_is() for region in changed} | self._written
        if _would_lose(self._backing.usage()) is None:
            return written
        kept = [s for s in self._regions if s.name in self.found and s.name not in written]
        return written | {region.name: region.flat.clone() for region in self._backing.written(kept)}

    def restore(self, writes: Table[str, torch.Tensor]) -> None:
        """Write again what an earlier home of the same files had been written into; before the first `to_device`."""
        for region in self._regions:
            if region.name in writes:
                region.flat.copy_(writes[region.name])

    def close(self) -> None:
        """Let go of everything; the files are unmapped once the module is gone too."""
        steps: list[Callable[[], object]] = [self._come_down, self._backing.close]
        if self._uploader is not None:
            pinned = [self._pinned.close] if self._pinned is not None else []
            steps += [self._uploader.synchronize, *pinned, self._uploader.release]
        for step in steps:
            try:
                step()
            except Exception:  # noqa: BLE001 - the adapter edge: a lost device may raise anything, the rest has to go
                _log.warning("something of the weights was not given back", exc_info=True)
        self._module = self._uploader = self._pinned = self._way = None
        self._regions, self._loose = (), ()

    def forget_files(self) -> None:
        """Where the home is the disk, let the system drop the files from its cache; does nothing before `gone`."""
        if self._keep == DISK and self.gone:
            for file in {*self._sources, *self._backing.files}:
                file_cache.forget(file.path)

    # Within

    @property
    def _on_cpu(self) -> bool:
        return self._device == CPU

    def _refuse_stale(self) -> None:
        if changed := self.stale():
            raise FilesChanged(f"{changed} while it was read.", next_step="Try again when the file is complete.")

    def _come_down(self) -> None:
        if self._way is not None:
            if self._uploader is not None:
                self._uploader.before_current()
            self._written |= self._way.end()
            self._ended.append(self._way)
            self._way = None

    def _blocks(self) -> Blocks:
        return find_blocks(self._module, self._regions)

    def _sent(self, uploader: Uploader, streamed_in: int | None) -> DeviceCopy | Stream:
        source = self._source(uploader)
        if streamed_in is None:
            return DeviceCopy(self._regions, self._loose, self._device, uploader, source)
        return Stream(self._blocks(), self._loose, self._device, streamed_in, uploader, source)

    def _source(self, uploader: Uploader) -> Source:
        """Where bytes for the device come from: the pinned copy, or the files while nothing was written over them."""
        from_files = partial(self._piece, self._backing.usage().written == 0)
        if self._keep == PINNED and self._pinned is None and self._unpinned is None:
            try:
                self._pinned = PinnedCopy(self._regions, self._device, uploader, from_files)
            except (MemoryError, OSError) as error:
                self._unpinned = f"Its home is its file, because no pinned copy could be made: {first_line(error)}."
                _log.warning("%s", self._unpinned)
        return from_files if self._pinned is None else self._pinned.piece

    def _piece(self, clean: bool, region: Region, offset: int) -> Piece:
        import torch

        found = self._backing.place_of(region) if clean else None
        file = (found[0].identity, found[1]) if found else None
        return Piece(offset, region.flat.view(torch.uint8), file)

    def _footprint(self, resident: int | None) -> Footprint:
        at_home = None if resident is None else self._plain + resident
        if self._computing and self._on_cpu:
            return Footprint(at_home, self._beside, self.total)
        on_device = self.left + (self._way.nbytes if self._way else 0)
        beside = self._beside + (self._pinned.nbytes if self._pinned else 0)
        return Footprint(on_device, None if at_home is None else at_home + beside, self.total)


def _would_lose(usage: Usage) -> str | None:
    """Say why giving the pages back would lose something that is in no file, None when it would not."""
    if usage.written:
        return _WRITES
    if usage.written is None:
        return "The system does not say whether it writes into its own weights, so when idle it is unloaded."
    return None

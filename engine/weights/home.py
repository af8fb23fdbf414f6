"""The home of one module's weights: mappings of its files, so that an offload and a return copy nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping as Table
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from engine.devices.placement import Footprint, Placement
from engine.errors import CannotRest, FilesChanged, first_line
from engine.weights.files import file_cache
from engine.weights.files.file_backing import FileBacking
from engine.weights.files.inventory import Inventory, Region, take_inventory
from engine.weights.files.mapping import warm_cache
from engine.weights.files.pages import Usage
from engine.weights.files.store import Store
from engine.weights.home_request import DISK, PINNED, HomeRequest, Locations
from engine.weights.moves.blocks import Blocks, find_blocks
from engine.weights.moves.device_copy import DeviceCopy, copy_size
from engine.weights.moves.paging import Paging
from engine.weights.moves.pinned_copy import PinnedCopy
from engine.weights.moves.staging import Piece, Source, Uploader
from engine.weights.moves.streaming import Stream

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

_WRITES: Final = "It writes into its own weights, so when idle it is unloaded; what it wrote is kept."
_ON_DISK: Final = "Its home is the disk, so stepping down unloads it."


class Home:
    """The weights of one module, as views of copy-on-write mappings of its files.

    A tensor that a file holds exactly as the module uses it is a view of that file. The others (another element type,
    renamed or fused by the library, pickled) are written once to a converted file in the store. If that fails they stay
    in plain memory, and `cannot_rest` has the reason. Buffers that no file has are left alone.
    """

    def __init__(self, module: Any, store: Store, request: HomeRequest) -> None:
        """Adopt `module`, which is on the CPU; raises LoadFailed if one of its files changed meanwhile."""
        inventory = take_inventory(module)
        self.cannot_rest: str | None = None
        """Why the weights cannot stay in RAM, because they would be lost or free nothing; None if they can."""
        self._module = module
        self._request = request
        self._regions = inventory.regions
        self._loose = inventory.loose
        self._backing = FileBacking(store, request)
        self._uploader: Uploader | None = None
        self._pinned: PinnedCopy | None = None
        self._unpinned: str | None = None
        """Why a pinned copy was requested and could not be made."""
        self._computing = False
        self._move: DeviceCopy | Stream | Paging | None = None
        """The weights as the module computes on them, if not on the mapping alone."""
        self._ended: list[DeviceCopy | Stream | Paging] = []
        self._written: dict[str, torch.Tensor] = {}
        try:
            self._adopt(inventory)
        except BaseException:
            self.close()
            raise

    def _adopt(self, inventory: Inventory) -> None:
        import torch

        self._refuse_stale()
        self._backing.assign(inventory)
        self._plain = sum(region.flat.nbytes for region in self._regions if region.name not in self.locations)
        self._beside = sum(ref.tensor.nbytes for ref in self._loose if ref.tensor.layout is torch.strided)
        self.total = self._beside + sum(region.flat.nbytes for region in self._regions)
        self._refuse_stale()
        # Off another device, weights in plain memory can stay in RAM like any others.
        if self._request.on_cpu and (problem := self._backing.problem):
            self.cannot_rest = f"Its weights are in plain memory, so when idle it is unloaded: {problem}."
        else:
            # The comparison with the files has touched every page; the first use reads only those that it needs.
            self._backing.give_back()
        if self._request.keep == DISK:
            self.cannot_rest = _ON_DISK

    # Looking

    @property
    def locations(self) -> Locations:
        """The place in a file of every region that has one."""
        return self._backing.locations

    def stale(self) -> str | None:
        """Return the change of one of its files in words, None if there is none; one stat per file, no page touched."""
        files = (*self._request.sources, *self._backing.files)
        return next((changed for file in files if (changed := file.changed())), None)

    def needs(self) -> tuple[int, int | None]:
        """Return the bytes of the weights on their device: whole, and streamed, None if they cannot be streamed."""
        blocks = self._blocks()
        least = blocks.least(self._loose)
        if not self._request.on_cpu:
            return copy_size(self._regions, self._loose), least
        # Only pages of a file can be dropped: blocks in plain memory stay in RAM whether they run or not.
        pageable = any(region.name in self.locations for block in blocks.blocks for region in block.regions)
        return self.total, least if pageable else None

    def footprint(self) -> Footprint:
        """Return the resident bytes at this instant as the system counts them."""
        return self._footprint(self._backing.usage().resident)

    def remains(self) -> int | None:
        """Return the resident bytes of the mappings that are left after `close`."""
        return self._backing.usage().resident

    @property
    def left(self) -> int:
        """Bytes on the device that ended moves could not free, because something else refers to them."""
        self._ended = [move for move in self._ended if move.nbytes]
        return sum(move.nbytes for move in self._ended)

    @property
    def gone(self) -> bool:
        """Whether, after `close`, all files are unmapped and all device memory is free."""
        return all(mapping.gone for mapping in self._backing.mappings) and not self.left

    # Moving

    def fault_in(self) -> None:
        """Read every page of the files now; raises OSError."""
        for mapping in self._backing.mappings:
            mapping.read_in()

    def warm_cache(self) -> None:
        """Read the files into the system's cache, but not into this process; raises OSError."""
        for mapping in self._backing.mappings:
            warm_cache(mapping.identity.path)

    def to_device(self, placement: Placement) -> str | None:
        """Make the weights ready to compute: copied to the device, or on a CPU the mapped pages themselves.

        Returns a note for the user, if there is one. An error, such as an out-of-memory error of the device, leaves the
        module unchanged.
        """
        if not self._request.on_cpu:
            self._uploader = self._uploader or Uploader.of(self._request.device)
            self._move = self._send(self._uploader, placement.streamed_in)
            if _would_lose(self._backing.usage()) is None:
                try:
                    self._backing.give_back()
                except OSError as error:  # not fatal: the module can compute
                    _log.warning("the pages of its files stay in RAM: %s", error)
        elif placement.streamed_in is not None:
            self._move = Paging(self._blocks(), placement.streamed_in, self._backing.place_of)
        self._computing = True
        notes = (self._unpinned, self._move.note if self._move else None)
        return " ".join(filter(None, notes)) or None

    def offload(self) -> Footprint:
        """Take the weights off their device and give their pages back; the next use reads them from the files again.

        Returns the footprint before. Raises CannotRest if some weights are in no file (on a CPU), if the module has
        written to them or if their home is the disk; OSError if the system refuses.
        """
        usage = self._backing.usage()
        before = self._footprint(usage.resident)
        self._end_move()
        if self.cannot_rest is None:
            self.cannot_rest = _WRITES if self._written else _would_lose(usage)
        if self.cannot_rest is not None:
            raise CannotRest(self.cannot_rest)
        self._backing.give_back()
        self._computing = False
        return before

    def writes(self) -> dict[str, torch.Tensor]:
        """Return copies of the regions that the module has written to: name -> elements, (n,); usually empty.

        In plain memory only the writes that torch counts are seen, because there is no file to compare with.
        """
        self._end_move()
        if self.stale():
            return {}
        changed = (r for r in self._regions if r.rebound() or (r.written() and r.name not in self.locations))
        written = {region.name: region.snapshot() for region in changed} | self._written
        if _would_lose(self._backing.usage()) is None:
            return written
        kept = [r for r in self._regions if r.name in self.locations and r.name not in written]
        return written | {region.name: region.flat.clone() for region in self._backing.modified(kept)}

    def restore(self, writes: Table[str, torch.Tensor]) -> None:
        """Repeat the `writes` of an earlier home of the same files; call it before the first `to_device`."""
        for region in self._regions:
            if region.name in writes:
                region.flat.copy_(writes[region.name])

    def close(self) -> None:
        """Release everything; the files are unmapped once the module is freed too."""
        steps: list[Callable[[], object]] = [self._end_move, self._backing.close]
        if self._uploader is not None:
            pinned = [self._pinned.close] if self._pinned is not None else []
            steps += [self._uploader.synchronize, *pinned, self._uploader.release]
        for step in steps:
            try:
                step()
            except Exception:  # noqa: BLE001 - the adapter edge: a lost device may raise anything, the other steps must run
                _log.warning("something of the weights was not given back", exc_info=True)
        self._module = self._uploader = self._pinned = self._move = None
        self._regions, self._loose = (), ()

    def forget_files(self) -> None:
        """If the home is the disk, let the system drop the files from its cache; does nothing before `gone`."""
        if self._request.keep == DISK and self.gone:
            for file in {*self._request.sources, *self._backing.files}:
                file_cache.forget(file.path)

    # Within

    def _refuse_stale(self) -> None:
        if changed := self.stale():
            raise FilesChanged(f"{changed} while it was read.", next_step="Try again when the file is complete.")

    def _end_move(self) -> None:
        if self._move is not None:
            if self._uploader is not None:
                self._uploader.before_current()
            self._written |= self._move.end()
            self._ended.append(self._move)
            self._move = None

    def _blocks(self) -> Blocks:
        return find_blocks(self._module, self._regions)

    def _send(self, uploader: Uploader, streamed_in: int | None) -> DeviceCopy | Stream:
        source, device = self._source(uploader), self._request.device
        if streamed_in is None:
            return DeviceCopy(self._regions, self._loose, device, uploader, source)
        return Stream(self._blocks(), self._loose, device, streamed_in, uploader, source)

    def _source(self, uploader: Uploader) -> Source:
        """Return the source of bytes for the device: the pinned copy, or the files if nothing was written over them."""
        from_files = partial(self._piece, self._backing.usage().written == 0)
        if self._request.keep == PINNED and self._pinned is None and self._unpinned is None:
            try:
                self._pinned = PinnedCopy(self._regions, self._request.device, uploader, from_files)
            except (MemoryError, OSError) as error:
                self._unpinned = f"Its home is its file, because no pinned copy could be made: {first_line(error)}."
                _log.warning("%s", self._unpinned)
        return from_files if self._pinned is None else self._pinned.piece

    def _piece(self, clean: bool, region: Region, offset: int) -> Piece:
        import torch

        place = self._backing.place_of(region) if clean else None
        file = (place[0].identity, place[1]) if place else None
        return Piece(offset, region.flat.view(torch.uint8), file)

    def _footprint(self, resident: int | None) -> Footprint:
        at_home = None if resident is None else self._plain + resident
        if self._computing and self._request.on_cpu:
            return Footprint(at_home, self._beside, self.total)
        on_device = self.left + (self._move.nbytes if self._move else 0)
        beside = self._beside + (self._pinned.nbytes if self._pinned else 0)
        return Footprint(on_device, None if at_home is None else at_home + beside, self.total)


def _would_lose(usage: Usage) -> str | None:
    """Return why giving the pages back would lose bytes that are in no file; None if it would not."""
    if usage.written:
        return _WRITES
    if usage.written is None:
        return "The system does not say whether it writes into its own weights, so when idle it is unloaded."
    return None

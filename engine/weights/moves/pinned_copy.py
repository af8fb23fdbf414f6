"""A second home for weights that shall come to their device at the bus's speed: a pinned copy of all of them."""

from __future__ import annotations

from collections.abc import Sequence

from engine.weights.files.inventory import Region
from engine.weights.moves.pinned import PinnedMemory
from engine.weights.moves.staging import Piece, Source, Uploader, laid_out


class PinnedCopy:
    """All regions of a module, in one run of pinned memory that is ours; it stays in RAM until `close`."""

    def __init__(self, regions: Sequence[Region], device: str, uploader: Uploader, source: Source) -> None:
        """Read everything. Raises MemoryError or OSError where it cannot be had, and what reading a file raises."""
        self.nbytes, offsets = laid_out(region.flat.nbytes for region in regions)
        if self.nbytes > (free := _available()):
            raise MemoryError(f"{self.nbytes} bytes are more than the {free} that the system has left")
        self._memory = PinnedMemory(self.nbytes, device)
        self._offsets = dict(zip(regions, offsets, strict=True))
        if not self._memory.pinned:
            self.close()
            raise OSError("the driver of its device pins no memory of ours")
        try:
            uploader.collect(self._memory, [source(region, offset) for region, offset in self._offsets.items()])
        except BaseException:
            self.close()
            raise

    def piece(self, region: Region, offset: int) -> Piece:
        """Return where the bytes of a region are; the device has to have them before `close`."""
        begin = self._offsets[region]
        return Piece(offset, self._memory.tensor[begin : begin + region.flat.nbytes], pinned=True)

    def close(self) -> None:
        """Give the memory back; nothing may be on its way from it."""
        self._memory.close()


def _available() -> int:
    import psutil

    return int(psutil.virtual_memory().available)

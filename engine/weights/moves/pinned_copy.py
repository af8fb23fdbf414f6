"""A pinned copy of a module's weights, from which they reach their device at the bus's speed."""

from __future__ import annotations

from collections.abc import Sequence

from engine.weights.files.inventory import Region
from engine.weights.moves.pinned import PinnedMemory
from engine.weights.moves.staging import Piece, Source, Uploader, lay_out


class PinnedCopy:
    """All regions of a module in one run of pinned memory, resident until `close`."""

    def __init__(self, regions: Sequence[Region], device: str, uploader: Uploader, source: Source) -> None:
        """Read everything; raises MemoryError or OSError without enough pinned memory, and any error of a file."""
        self.nbytes, offsets = lay_out(region.flat.nbytes for region in regions)
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
        """Return the bytes of a region; the device must have received them before `close`."""
        begin = self._offsets[region]
        return Piece(offset, self._memory.tensor[begin : begin + region.flat.nbytes], pinned=True)

    def close(self) -> None:
        """Free the memory; no copy from it may be in progress."""
        self._memory.close()


def _available() -> int:
    import psutil

    return int(psutil.virtual_memory().available)

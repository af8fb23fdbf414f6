"""Which file a piece of memory is mapped from, as far as the system tells."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backing:
    """Where in which file a run of memory begins; `file` is how the system names it, to be compared and no more."""

    file: tuple[str, int]
    offset: int
    """Bytes from the file's start."""


@dataclass(frozen=True, slots=True)
class Region:
    """A run of addresses, the first one after it, and where its first byte comes from."""

    start: int
    end: int
    backing: Backing


class Backings:
    """All file mappings of this process at one instant; none of them where the system does not list them."""

    def __init__(self, regions: Iterable[Region] = ()) -> None:
        """Keep regions, given in the order of their addresses; what a protection or an advice has split is one."""
        self._regions: list[Region] = []
        for region in regions:
            if self._regions and (whole := _joined(self._regions[-1], region)):
                self._regions[-1] = whole
            else:
                self._regions.append(region)
        self._starts = [region.start for region in self._regions]

    def of(self, address: int, length: int) -> Backing | None:
        """Return what the memory from `address` on was mapped from; None when not all of it is of one file.

        It says nothing about what was written there since.
        """
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address + length > self._regions[index].end:
            return None
        region = self._regions[index]
        return Backing(region.backing.file, region.backing.offset + address - region.start)


def _joined(left: Region, right: Region) -> Region | None:
    goes_on = Backing(left.backing.file, left.backing.offset + left.end - left.start)
    return Region(left.start, right.end, left.backing) if left.end == right.start and right.backing == goes_on else None

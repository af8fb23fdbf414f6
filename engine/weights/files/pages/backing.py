"""The files from which the memory of this process is mapped, as far as the system lists them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backing:
    """The file and offset at which a run of memory begins."""

    file: tuple[str, int]
    """The system's own name of the file, for comparison only."""
    offset: int
    """Bytes from the file's start."""


@dataclass(frozen=True, slots=True)
class AddressRange:
    """A run of addresses that is mapped from a file."""

    start: int
    end: int
    """The first address after it."""
    backing: Backing
    """The origin of its first byte."""


class Backings:
    """All file mappings of this process at one instant; empty if the system does not list them."""

    def __init__(self, ranges: Iterable[AddressRange] = ()) -> None:
        """Keep ranges, given in the order of their addresses; join those split by a protection or an advice."""
        self._ranges: list[AddressRange] = []
        for each in ranges:
            if self._ranges and (whole := _joined(self._ranges[-1], each)):
                self._ranges[-1] = whole
            else:
                self._ranges.append(each)
        self._starts = [each.start for each in self._ranges]

    def of(self, address: int, length: int) -> Backing | None:
        """Return the origin of the memory from `address` on; None if not all of it is mapped from one file.

        The memory may have been written to since.
        """
        index = bisect_right(self._starts, address) - 1
        if index < 0 or address + length > self._ranges[index].end:
            return None
        found = self._ranges[index]
        return Backing(found.backing.file, found.backing.offset + address - found.start)


def _joined(left: AddressRange, right: AddressRange) -> AddressRange | None:
    following = Backing(left.backing.file, left.backing.offset + left.end - left.start)
    if left.end == right.start and right.backing == following:
        return AddressRange(left.start, right.end, left.backing)
    return None

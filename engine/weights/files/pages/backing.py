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
class AddressRange:
    """A run of addresses, the first one after it, and where its first byte comes from."""

    start: int
    end: int
    backing: Backing


class Backings:
    """All file mappings of this process at one instant; none of them where the system does not list them."""

    def __init__(self, ranges: Iterable[AddressRange] = ()) -> None:
        """Keep ranges, given in the order of their addresses; what a protection or an advice has split is one."""
        self._ranges: list[AddressRange] = []
        for each in ranges:
            if self._ranges and (whole := _joined(self._ranges[-1], each)):
                self._ranges[-1] = whole
            else:
                self._ranges.append(each)
        self._starts = [each.start for each in self._ranges]

    def of(self, address: int, length: int) -> Backing | None:
        """Return what the memory from `address` on was mapped from; None when not all of it is of one file.

        It says nothing about what was written there since.
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

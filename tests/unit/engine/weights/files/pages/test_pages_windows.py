"""Windows' view of a mapping, with a kernel32 of our own that has one mapping of eight pages."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
import pytest

from engine.weights.files.pages.usage import Usage
from engine.weights.files.pages.windows import Memory

PAGE = mmap.PAGESIZE
START = 0x7FF0_0000_0000
NOT_LOCKED, INVALID_ADDRESS = 158, 487
COPY_ON_WRITE, READ_WRITE, GUARD = 0x08, 0x04, 0x100
MAPPED, PRIVATE = 0x40000, 0x20000


class FakeKernel32:
    """One view of `protections` (a page each, None for a hole) at START, and which of its pages are resident."""

    def __init__(self, protections: list[int | None], resident: set[int] = frozenset(), kind: int = MAPPED) -> None:  # type: ignore[assignment]
        self.protections, self.resident, self.kind = protections, set(resident), kind
        self.error, self.answers, self.asked = NOT_LOCKED, True, 0

    def last_error(self) -> int:
        return self.error

    def GetCurrentProcess(self) -> int:  # noqa: N802
        return -1

    def VirtualUnlock(self, address: int, length: int) -> int:  # noqa: N802
        if self.error == NOT_LOCKED:
            first = (address - START) // PAGE
            self.resident -= set(range(first, first + -(-length // PAGE)))
        return 0

    def VirtualQuery(self, address: int, region: Any, size: int) -> int:  # noqa: N802
        assert size == 48 == ctypes.sizeof(region._obj)  # as the documentation has it, on 64 bits
        first = last = (address - START) // PAGE
        if first >= len(self.protections):
            return 0
        while last < len(self.protections) and self.protections[last] == self.protections[first]:
            last += 1
        found, protection = region._obj, self.protections[first]
        found.BaseAddress, found.RegionSize = START + first * PAGE, (last - first) * PAGE
        found.Protect, found.Type = protection or 0, self.kind if protection else 0
        return size

    def K32QueryWorkingSetEx(self, process: int, pages: int, size: int) -> int:  # noqa: N802
        assert process == -1
        self.asked += 1
        asked = np.ctypeslib.as_array((ctypes.c_size_t * (size // 8)).from_address(pages)).reshape(-1, 2)
        for row in asked:
            page = (int(row[0]) - START) // PAGE
            shared = 0 if (self.protections[page] or 0) & 0xFF == READ_WRITE else 1 << 15
            row[1] = 1 | shared if page in self.resident else shared
        return int(self.answers)


def memory(fake: FakeKernel32) -> Memory:
    return Memory(fake, fake.last_error)


def test_resident_pages_are_counted_and_a_clean_view_has_none_written() -> None:
    fake = FakeKernel32([COPY_ON_WRITE] * 8, {0, 3, 7})
    assert memory(fake).usage(START, 8 * PAGE) == Usage(3 * PAGE, 0)
    assert memory(fake).usage(START + 3 * PAGE, PAGE // 2) == Usage(PAGE, 0)
    assert memory(fake).usage(START, 0) == Usage(0, 0)


@pytest.mark.parametrize("resident", [{1, 2, 5}, set()], ids=["in the working set", "out of it"])
def test_pages_written_to_are_counted_wherever_they_are(resident: set[int]) -> None:
    protections: list[int | None] = [COPY_ON_WRITE] * 8
    protections[1] = protections[2] = READ_WRITE
    protections[5] = READ_WRITE | GUARD
    fake = FakeKernel32(protections, resident)
    assert memory(fake).usage(START, 8 * PAGE) == Usage(len(resident) * PAGE, 3 * PAGE)
    assert memory(fake).usage(START + 2 * PAGE, 2 * PAGE).written == PAGE


def test_the_heap_that_took_the_place_of_a_view_was_not_written_by_us() -> None:
    fake = FakeKernel32([READ_WRITE] * 8, kind=PRIVATE)
    assert memory(fake).usage(START, 8 * PAGE).written == 0


def test_a_hole_counts_nothing() -> None:
    assert memory(FakeKernel32([None] * 8)).usage(START, 8 * PAGE) == Usage(0, 0)


def test_more_pages_than_one_call_takes_are_asked_for_in_turns() -> None:
    fake = FakeKernel32([COPY_ON_WRITE] * 65540, set(range(65530, 65540)))
    assert memory(fake).usage(START, 65540 * PAGE) == Usage(10 * PAGE, 0)
    assert fake.asked == 2


def test_a_system_that_does_not_say_what_is_resident_may_still_say_what_was_written() -> None:
    fake = FakeKernel32([READ_WRITE] * 2)
    fake.answers = False
    assert memory(fake).usage(START, 2 * PAGE) == Usage(None, 2 * PAGE)


def test_unlocking_what_nobody_locked_gives_it_back() -> None:
    fake = FakeKernel32([COPY_ON_WRITE] * 8, set(range(8)))
    memory(fake).give_back(START, 8 * PAGE)
    assert memory(fake).usage(START, 8 * PAGE) == Usage(0, 0)


def test_a_refusal_is_an_error_with_windows_number() -> None:
    fake = FakeKernel32([COPY_ON_WRITE])
    fake.error = INVALID_ADDRESS
    with pytest.raises(OSError, match="487"):
        memory(fake).give_back(START, PAGE)
    memory(fake).give_back(START, 0)

"""Which file a piece of memory comes from, by what Linux lists."""

from __future__ import annotations

import pytest

from engine.weights.files.pages.backing import Backing, Backings
from engine.weights.files.pages.linux import address_ranges

PAGE = 0x1000
FILE = ("fd:00", 77)
LISTED = """\
10000-20000 r--p 00000000 fd:00 77                             /models/a name with spaces (deleted)
20000-30000 rw-p 00010000 fd:00 77                             /models/a name with spaces (deleted)
30000-38000 rw-p 00000000 fd:00 78                             /models/other
38000-40000 rw-p 00000000 00:00 0
40000-50000 r--p 00020000 fd:00 77                             /models/a name with spaces (deleted)
50000-60000 r--p 00040000 fd:00 77                             /models/a name with spaces (deleted)
60000-70000 r--s 00000000 fe:00 77                             /elsewhere
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                [stack]
""".splitlines()


@pytest.fixture
def known() -> Backings:
    return Backings(address_ranges(LISTED))


@pytest.mark.parametrize(("address", "offset"), [(0x10000, 0), (0x10005, 5), (0x40010, 0x20010), (0x50000, 0x40000)])
def test_memory_of_a_file_is_known_by_where_it_stands_in_it(known: Backings, address: int, offset: int) -> None:
    assert known.of(address, 16) == Backing(FILE, offset)


def test_a_mapping_that_a_protection_has_split_is_one(known: Backings) -> None:
    assert known.of(0x1FFF0, 0x20) == Backing(FILE, 0xFFF0)
    assert known.of(0x10000, 0x20000) == Backing(FILE, 0)


@pytest.mark.parametrize(
    ("address", "length"),
    [
        (0x2FFF0, 0x20),  # from one file into another
        (0x37FF0, 0x20),  # into memory of no file
        (0x4FFF0, 0x20),  # the same file, but not what comes next in it
        (0x6FFF0, 0x20),  # over the end
    ],
)
def test_memory_that_no_one_file_holds_in_a_row_is_no_files(known: Backings, address: int, length: int) -> None:
    assert known.of(address, length) is None


@pytest.mark.parametrize("address", [0, 0xFFFF, 0x38000, 0x70000, 0x7FFD00000000])
def test_memory_that_is_not_a_files_is_known_as_none(known: Backings, address: int) -> None:
    assert known.of(address, 1) is None


def test_a_file_on_another_device_is_another_one(known: Backings) -> None:
    assert known.of(0x60000, 1) == Backing(("fe:00", 77), 0)


def test_where_the_system_lists_nothing_nothing_is_known() -> None:
    assert Backings().of(0x10000, 1) is None

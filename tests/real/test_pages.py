"""What the kernel says about a real mapping of a real file, in both of its ways; smaps is the judge."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.weights.files import layout, pages
from engine.weights.files.mapping import Mapping, runs_of, warm_cache
from engine.weights.files.pages import Usage

if sys.platform != "linux":
    pytest.skip("the page tables are Linux'", allow_module_level=True)

from engine.weights.files.pages import linux, other, touch

MIB = 1 << 20
SIZE = 32 * MIB
PAGE = mmap.PAGESIZE
FOLIO = 2 * MIB
"""The most that one touch may map beyond the page it touches."""
LIST = 65536
"""Pages that one read of the process's list tells of."""


class Mapped:
    """A private mapping of a whole file, by its address."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.length = len(self.map)
        whole = (ctypes.c_char * self.length).from_buffer(self.map)
        self.address = ctypes.addressof(whole)

    def touch(self, begin: int = 0, end: int | None = None) -> None:
        assert sum(self.map[at] for at in range(begin, end or self.length, PAGE)) >= 0

    def usage(self, begin: int = 0, end: int | None = None) -> Usage:
        """The answer that all ways agree on, and smaps too where it is about the whole mapping."""
        place = (self.address + begin, (end or self.length) - begin)
        answer = pages.usage(*place)
        assert linux.listed(*place) == answer
        if linux.first_that_works(linux.scanned, linux.listed) is linux.scanned:  # not on a kernel before 6.7
            assert linux.scanned(*place) == answer
        if (begin, end) == (0, None):
            assert smaps(self.address, self.address + whole(self.length)) == answer
        return answer


def smaps(start: int, end: int) -> Usage:
    """What smaps counts for the mappings within a range."""
    figures, ours = {"Rss": 0, "Anonymous": 0, "Swap": 0}, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            ours = start <= int(found[1], 16) and int(found[2], 16) <= end
        elif ours and (name := line.partition(":")[0]) in figures:
            figures[name] += int(line.split()[1]) * 1024
    return Usage(figures["Rss"], figures["Anonymous"] + figures["Swap"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    with path.open("wb") as file:
        file.write(os.urandom(MIB) * (SIZE // MIB) + b"tail")  # the last page is not full
        os.fsync(file.fileno())
    return path


@contextmanager
def mapped(path: Path) -> Iterator[Mapped]:
    it = Mapped(path)
    yield it
    it.map.close()


def whole(size: int) -> int:
    return -(-size // PAGE) * PAGE


def test_nothing_is_resident_before_the_first_touch(path: Path) -> None:
    with mapped(path) as it:
        assert it.usage() == Usage(0, 0)


def test_all_is_resident_after_every_page_was_touched(path: Path) -> None:
    with mapped(path) as it:
        it.touch()
        assert it.usage() == Usage(whole(it.length), 0)


def test_half_is_resident_after_half_was_touched(path: Path) -> None:
    with mapped(path) as it:
        it.touch(0, SIZE // 2)
        usage = it.usage()
        assert usage.written == 0
        assert SIZE // 2 <= (usage.resident or 0) <= SIZE // 2 + FOLIO


def test_a_byte_written_counts_one_page_until_it_is_given_back(path: Path) -> None:
    with mapped(path) as it:
        it.touch()
        it.map[5 * PAGE + 7] = (it.map[5 * PAGE + 7] + 1) % 256
        it.touch()  # a write unmaps the rest of a large folio
        assert it.usage() == Usage(whole(it.length), PAGE)
        it.map[-1] = 0
        it.touch()
        assert it.usage() == Usage(whole(it.length), 2 * PAGE)
        pages.give_back(it.address, it.length)
        assert it.usage() == Usage(0, 0)
        assert it.map[-4:] == b"tail"


def test_pages_given_back_come_back_from_the_file(path: Path) -> None:
    with mapped(path) as it:
        before = it.map[:]
        pages.give_back(it.address, it.length)
        assert it.usage() == Usage(0, 0)
        assert it.map[:] == before
        assert it.usage() == Usage(whole(it.length), 0)


def test_a_range_that_is_not_mapped_any_more_counts_nothing_and_cannot_be_given_back(path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    reserved = libc.mmap(None, SIZE, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    assert libc.munmap(reserved, SIZE) == 0
    assert pages.usage(reserved, PAGE) == linux.listed(reserved, PAGE) == Usage(0, 0)
    with pytest.raises(OSError, match="madvise"):
        pages.give_back(reserved, PAGE)


def test_a_file_that_is_not_on_disk_yet_does_not_count_as_written(tmp_path: Path) -> None:
    path = tmp_path / "fresh"
    path.write_bytes(os.urandom(MIB) * 4)
    with mapped(path) as it:
        it.touch()
        assert it.usage() == Usage(4 * MIB, 0)


def test_more_pieces_than_one_answer_holds_are_added_up(path: Path) -> None:
    with mapped(path) as it:
        it.touch()
        for at in range(0, SIZE, 2 * PAGE):
            it.map[at] = 1
        it.touch()
        assert it.usage() == Usage(whole(it.length), SIZE // 2)


def test_more_pages_than_one_read_of_the_list_holds_are_added_up(tmp_path: Path) -> None:
    path, count = tmp_path / "sparse", 2 * LIST + 100
    with path.open("wb") as file:
        file.truncate(count * PAGE - 5)
    with mapped(path) as it:
        assert it.usage() == Usage(0, 0)
        wrote = [0, 7, LIST - 1, LIST, LIST + 1, 2 * LIST - 1, 2 * LIST, count - 1]
        for page in wrote:
            it.map[page * PAGE] = 1
        usage = it.usage()
        assert usage.written == len(wrote) * PAGE
        assert usage.resident is not None
        assert usage.written <= usage.resident <= len(wrote) * FOLIO
        assert it.usage(LIST * PAGE, 2 * LIST * PAGE).written == 3 * PAGE
        pages.give_back(it.address, it.length)
        assert it.usage() == Usage(0, 0)


@pytest.mark.parametrize(
    ("begin", "end", "count"),
    [
        (0, 1, 1),
        (PAGE - 1, PAGE, 1),
        (PAGE - 1, PAGE + 1, 2),
        (PAGE + 100, 3 * PAGE + 1, 3),
        (PAGE + 100, 3 * PAGE, 2),
        (5 * PAGE, 5 * PAGE, 0),
        (5 * PAGE + 3, 5 * PAGE + 3, 0),
        (3, SIZE + 2, SIZE // PAGE + 1),
    ],
)
def test_a_range_that_starts_or_ends_within_a_page_counts_the_pages_it_touches(
    path: Path, begin: int, end: int, count: int
) -> None:
    with mapped(path) as it:
        for at in range(0, it.length, PAGE):
            it.map[at] = 1
        it.touch()
        assert it.usage() == Usage(whole(it.length), whole(it.length))
        assert it.usage(begin, end) == Usage(count * PAGE, count * PAGE)


def test_what_lies_beside_a_range_does_not_count(path: Path) -> None:
    with mapped(path) as it:
        it.map[4 * PAGE] = it.map[8 * PAGE] = 1
        assert it.usage(4 * PAGE + 1, 8 * PAGE).written == PAGE
        assert it.usage(5 * PAGE, 8 * PAGE).written == 0
        assert it.usage(5 * PAGE, 8 * PAGE + 1).written == PAGE


def test_looking_opens_nothing_for_good(path: Path) -> None:
    with mapped(path) as it:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counts the folder's own handle both times
        for _ in range(10):
            it.usage()
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_the_other_systems_advice_reaches_the_c_library(path: Path) -> None:
    with mapped(path) as it:
        it.touch()
        other.give_back(it.address, it.length)
        assert it.usage() == Usage(0, 0)
        assert other.usage(it.address, it.length) == Usage(None, 0)
    with pytest.raises(OSError, match="madvise"):
        other.give_back(1, PAGE)


# The file cache


def cached(it: Mapped, begin: int = 0, end: int | None = None) -> int:
    """Bytes of the file that are in the system's cache, from mincore(2)."""
    length = (end or it.length) - begin
    found = (ctypes.c_ubyte * (whole(length) // PAGE))()
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(it.address + begin), ctypes.c_size_t(length), found) == 0
    return sum(page & 1 for page in found) * PAGE


def forget(path: Path) -> None:
    """Drop the file from the system's cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_a_file_that_is_warmed_is_in_the_cache_and_not_in_the_process(path: Path) -> None:
    forget(path)
    warm_cache(path)
    with mapped(path) as it:
        assert cached(it) == whole(it.length)
        assert it.usage() == Usage(0, 0)


def test_of_a_large_file_little_is_resident_while_it_is_warmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(256 * MIB)
    seen, advise = [resident()], linux._advise

    def watched(memory: mmap.mmap, *advice: int) -> None:
        advise(memory, *advice)
        seen.append(resident())

    monkeypatch.setattr(linux, "_advise", watched)
    warm_cache(path)
    assert 16 * MIB < max(seen) - seen[0] <= 40 * MIB
    assert seen[-1] - seen[0] <= 8 * MIB


def test_a_kernel_that_cannot_fill_a_mapping_reads_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "_MADV_POPULATE_READ", 9999)
    forget(path)
    warm_cache(path)
    with mapped(path) as it:
        assert cached(it) == whole(it.length)


def test_reading_a_file_through_warms_it_too(path: Path) -> None:
    forget(path)
    with path.open("rb", buffering=0) as file:
        touch.read_through(file)
    with mapped(path) as it:
        assert cached(it) == whole(it.length)


def test_an_empty_file_is_not_mapped_to_be_warmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warmed: list[Any] = []
    monkeypatch.setattr(pages, "warm", warmed.append)
    (tmp_path / "empty").touch()
    (tmp_path / "full").write_bytes(b"1")
    for name in ("empty", "full"):
        warm_cache(tmp_path / name)
    assert [file.name for file in warmed] == [str(tmp_path / "full")]


def resident() -> int:
    """Bytes of the whole process, counted exactly."""
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8")
    return int(rollup.partition("Rss:")[2].split()[0]) * 1024


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(layout.header([("bytes", "U8", (SIZE,))], {}) + os.urandom(MIB) * (SIZE // MIB))
    forget(path)
    return path


def test_a_hint_reads_a_range_into_the_cache_and_makes_nothing_resident(weights: Path) -> None:
    mapping = Mapping(weights)
    with mapped(weights) as it:
        mapping.will_need(4 * MIB + 5, 8 * MIB + 5)
        give_up = time.monotonic() + 20
        while cached(it, 4 * MIB, 8 * MIB + PAGE) < 4 * MIB + PAGE:
            assert time.monotonic() < give_up
            time.sleep(0.01)
    assert mapping.usage() == Usage(0, 0)
    mapping.close()


def test_a_hint_on_what_is_gone_is_no_error(weights: Path) -> None:
    mapping = Mapping(weights)
    mapping.close()
    mapping.will_need()
    linux.will_need(0, PAGE)


def test_a_range_is_given_back_with_the_pages_at_its_borders_and_no_others(weights: Path) -> None:
    mapping = Mapping(weights)
    flat = mapping.flat(mapping.places["bytes"]).numpy()
    assert int(flat[::PAGE].sum()) + int(flat[-1]) >= 0
    everything = mapping.usage().resident
    assert everything == whole(weights.stat().st_size)
    mapping.give_back(5 * PAGE - 1, 7 * PAGE + 1)
    assert mapping.usage() == Usage(everything - 4 * PAGE, 0)
    mapping.give_back(8 * PAGE, 8 * PAGE)
    assert mapping.usage() == Usage(everything - 4 * PAGE, 0)
    mapping.give_back(everything - PAGE)
    assert mapping.usage() == Usage(everything - 5 * PAGE, 0)
    mapping.give_back()
    assert mapping.usage() == Usage(0, 0)


def test_only_the_pages_of_the_tensors_that_are_asked_for_count_as_resident(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    names = [("ours", 3 * PAGE), ("theirs", 16 * PAGE), ("ours too", 3 * PAGE), ("next", 10)]
    path.write_bytes(layout.header([(name, "U8", (size,)) for name, size in names], {}) + bytes(22 * PAGE + 10))
    mapping = Mapping(path)
    mapping.read_in()
    places = [mapping.places[name] for name in ("next", "ours too", "ours")]
    runs = runs_of(places)
    assert len(runs) == 2
    assert all(begin % PAGE == end % PAGE == 0 for begin, end in runs)
    everything, own = mapping.usage().resident or 0, mapping.usage(runs).resident or 0
    assert everything == whole(path.stat().st_size)
    assert own == sum(end - begin for begin, end in runs)
    assert 6 * PAGE <= own <= 9 * PAGE
    flat = mapping.flat(mapping.places["theirs"])
    flat[8 * PAGE] = 1
    assert mapping.usage(runs).written == PAGE, "what was written anywhere would be lost"
    del flat
    mapping.close()
    assert mapping.usage(runs) == Usage(0, 0)


# Which file it is


def test_two_mappings_of_a_file_are_known_to_be_of_the_same(path: Path) -> None:
    with mapped(path) as one, mapped(path) as other:
        known = pages.backings()
        assert known.of(one.address + 5, PAGE) == known.of(other.address + 5, PAGE)
        assert known.of(one.address + 5, PAGE) != known.of(other.address + 6, PAGE)


def test_a_copy_of_a_file_is_another_one(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    with mapped(path) as one, mapped(copy) as other:
        known = pages.backings()
        assert known.of(one.address, PAGE) != known.of(other.address, PAGE)


def test_memory_that_is_no_files_is_known_as_none() -> None:
    memory = ctypes.create_string_buffer(64 * MIB)
    assert pages.backings().of(ctypes.addressof(memory), 64 * MIB) is None

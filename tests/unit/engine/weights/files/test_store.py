"""The folder of converted weights: whole files or none, a bound, the least recently used first out."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.weights.files import layout
from engine.weights.files.store import Entry, Store

SIZE = 4096
"""Bytes of data in a test's file; its header adds less than that."""
MIB = 1 << 20
HOUR_NS = 3600 * 10**9
LIMIT_SECONDS = 5.0


class Clock:
    """Nanoseconds that go a second forward at every look."""

    def __init__(self) -> None:
        self.now = 1_700_000_000 * 10**9

    def __call__(self) -> int:
        self.now += 10**9
        return self.now


def entry(name: str = "w", data: Callable[[], bytes] = lambda: bytes(SIZE)) -> Entry:
    return Entry(name, "U8", (SIZE,), lambda: [data()])


def raising(error: BaseException) -> Callable[[], bytes]:
    def data() -> bytes:
        raise error

    return data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "weights"


@pytest.fixture
def store(folder: Path) -> Store:
    return Store(folder, clock_ns=Clock())


@pytest.fixture
def small(folder: Path) -> Store:
    """A store for two files."""
    return Store(folder, limit_bytes=2 * SIZE + 1000, reserve_bytes=0, clock_ns=Clock())


def put(store: Store, *keys: str) -> None:
    for key in keys:
        store.release(store.provide(key, [entry()]))


def found(store: Store, key: str) -> Path:
    """The file for the key, which must be there: nothing may be written."""
    return store.provide(key, [entry(data=raising(AssertionError("written again")))])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_written_once_and_found_afterwards(store: Store, folder: Path) -> None:
    path = store.provide("ab", [entry(data=lambda: b"x" * SIZE)])
    assert path == found(store, "ab")
    assert names(folder) == {"ab.safetensors"}
    (place,) = layout.read(path)
    assert path.read_bytes()[place.begin :] == b"x" * SIZE


def test_the_widest_elements_come_first_and_each_tensor_is_made_right_before_it_is_written(store: Store) -> None:
    made: list[str] = []

    def making(name: str, dtype: str, count: int) -> Entry:
        def parts() -> Iterator[bytes]:
            made.append(name)
            yield bytes([len(made)]) * (count * layout.ITEM_SIZES[dtype])

        return Entry(name, dtype, (count,), parts)

    path = store.provide("ab", [making("a", "BOOL", 3), making("b", "F16", 5), making("c", "I64", 1)])
    assert made == ["c", "b", "a"]
    assert [place.name for place in layout.read(path)] == ["c", "b", "a"]
    assert path.read_bytes()[-21:] == b"\1" * 8 + b"\2" * 10 + b"\3" * 3


def test_each_part_is_written_before_the_next_one_is_made(store: Store) -> None:
    room = bytearray(SIZE // 4)

    def parts() -> Iterator[memoryview]:
        for number in range(4):
            room[:] = bytes([number]) * len(room)
            yield memoryview(room)

    path = store.provide("ab", [Entry("w", "U8", (SIZE,), parts)])
    (place,) = layout.read(path)
    assert path.read_bytes()[place.begin :] == b"".join(bytes([number]) * (SIZE // 4) for number in range(4))


def _refused(*_: object) -> None:
    raise OSError(errno.EINVAL, "no such advice")


@pytest.mark.parametrize("advise", [None, _refused], ids=["no advice", "advice refused"])
def test_where_the_system_takes_no_advice_a_file_is_written_all_the_same(
    store: Store, advise: Callable[..., None] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fadvise", advise, raising=False)
    monkeypatch.setattr(os, "POSIX_FADV_DONTNEED", 4, raising=False)
    assert store.provide("ab", [entry()]).read_bytes().endswith(bytes(SIZE))


@pytest.mark.parametrize("key", ["", "../ab", "xyz", "a b"])
def test_a_key_that_is_no_digest_names_no_file(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="hex digest"):
        store.provide(key, [entry()])


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "full"), OSError("broken"), KeyboardInterrupt(), RuntimeError("no conversion")],
    ids=repr,
)
def test_an_error_half_way_leaves_nothing_behind(store: Store, folder: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        store.provide("ab", [entry("a"), entry("b", raising(error))])
    assert error in (caught.value, caught.value.__cause__)
    assert names(folder) == set()
    with pytest.raises(ValueError, match="not in use"):
        store.release(folder / "ab.safetensors")
    put(store, "ab")  # the lock is free


@pytest.mark.parametrize("size", [0, 3, SIZE - 1, SIZE + 1])
def test_data_of_the_wrong_size_make_no_file(store: Store, folder: Path, size: int) -> None:
    with pytest.raises(ValueError, match=f"has {size} bytes"):
        store.provide("ab", [entry(data=lambda: bytes(size))])
    assert names(folder) == set()


def test_a_folder_that_cannot_be_made_is_said_in_words_for_a_person(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the words are what is looked at
        Store(tmp_path / "cache" / "weights").provide("ab", [entry()])
    reason = os.strerror(caught.value.errno or 0)
    assert caught.value.strerror == f"the folder {tmp_path / 'cache' / 'weights'} cannot be written ({reason})"


def test_a_full_disk_refuses_before_anything_is_made_or_removed(folder: Path, small: Store) -> None:
    put(small, "a1", "a2")
    greedy = Store(folder, limit_bytes=2 * SIZE + 1000, reserve_bytes=1 << 60)
    with pytest.raises(OSError, match="stay free") as caught:
        greedy.provide("ab", [entry(data=raising(AssertionError()))])
    assert caught.value.errno == errno.ENOSPC
    assert names(folder) == {"a1.safetensors", "a2.safetensors"}


def test_what_a_disk_has_and_what_is_needed_are_told_in_mib(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 300 * MIB + 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(free, 0, free))
    large = Entry("w", "U8", (417 * MIB + 1,), raising(AssertionError()))
    with pytest.raises(OSError, match="stay free") as caught:
        Store(folder).provide("ab", [large])
    assert caught.value.strerror == (
        f"the disk of {folder} has 300 MiB free, and 674 MiB are needed (256 of them stay free)"
    )


def test_a_file_over_the_limit_is_refused_and_removes_none(small: Store, folder: Path) -> None:
    put(small, "a1")
    with pytest.raises(OSError, match="exceed the cache's limit") as caught:
        small.provide("ab", [entry("a"), entry("b"), entry("c")])
    assert caught.value.errno == errno.EFBIG
    assert names(folder) == {"a1.safetensors"}


def test_the_least_recently_used_file_goes_first(small: Store, folder: Path) -> None:
    put(small, "a1", "a2")
    small.release(found(small, "a1"))
    put(small, "a3")
    assert names(folder) == {"a1.safetensors", "a3.safetensors"}


def test_a_file_in_use_stays_until_every_use_is_given_back(small: Store, folder: Path) -> None:
    path = small.provide("a1", [entry()])
    assert found(small, "a1") == path
    put(small, "a2", "a3")
    assert names(folder) == {"a1.safetensors", "a3.safetensors"}
    small.release(path)
    put(small, "a4")
    assert "a1.safetensors" in names(folder)
    small.release(path)
    put(small, "a5")
    assert names(folder) == {"a4.safetensors", "a5.safetensors"}


def test_files_in_use_that_fill_the_cache_refuse_a_new_one(small: Store, folder: Path) -> None:
    small.provide("a1", [entry()])
    small.provide("a2", [entry()])
    with pytest.raises(OSError, match="files in use fill") as caught:
        small.provide("a3", [entry()])
    assert caught.value.errno == errno.ENOSPC
    assert names(folder) == {"a1.safetensors", "a2.safetensors"}


def test_a_use_given_back_twice_is_a_mistake_of_the_caller(store: Store) -> None:
    path = store.provide("ab", [entry()])
    store.release(path)
    with pytest.raises(ValueError, match="not in use"):
        store.release(path)


def test_a_use_shows_in_the_access_time_alone(folder: Path) -> None:
    clock = Clock()
    store = Store(folder, clock_ns=clock)
    path = store.provide("ab", [entry()])
    before = path.stat()
    assert found(store, "ab") == path
    after = path.stat()
    assert (after.st_mtime_ns, after.st_size, after.st_ino) == (before.st_mtime_ns, before.st_size, before.st_ino)
    assert after.st_atime_ns == clock.now > before.st_atime_ns


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"",
        lambda data: b"\xff" * len(data),
        lambda data: layout.header([("other", "U8", (SIZE,))], {}) + bytes(SIZE),
    ],
    ids=["short", "long", "empty", "noise", "another file's"],
)
def test_a_damaged_file_is_written_again(store: Store, damage: Callable[[bytes], bytes]) -> None:
    path = store.provide("ab", [entry()])
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert store.provide("ab", [entry()]) == path
    assert path.read_bytes() == whole


def test_a_killed_writer_s_file_is_swept_and_a_living_one_s_is_not_within_the_hour(store: Store, folder: Path) -> None:
    folder.mkdir(parents=True)
    now, here, nobody = Clock().now, os.getpid(), 2**22 + 1  # Linux counts no further than 2**22
    written = {f".ab.{nobody}.x.partial": 0, f".ab.{here}.x.partial": HOUR_NS // 2, f".ab.{here}.y.partial": HOUR_NS}
    for name, age in written.items():
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, ns=(now - age, now - age))
    put(store, "ab")
    assert names(folder) == {"ab.safetensors", f".ab.{here}.x.partial"}


def test_eight_threads_that_want_one_file_write_it_once(store: Store, folder: Path) -> None:
    started, made = threading.Barrier(8), []

    def provide() -> Path:
        started.wait(LIMIT_SECONDS)
        return store.provide("ab", [entry(data=lambda: made.append(1) or bytes(SIZE))])

    with ThreadPoolExecutor(8) as pool:
        paths = [future.result(LIMIT_SECONDS) for future in [pool.submit(provide) for _ in range(8)]]
    assert len(set(paths)) == len(made) == 1
    for path in paths:
        store.release(path)
    assert names(folder) == {"ab.safetensors"}


def test_finding_a_file_waits_for_no_writer(store: Store) -> None:
    path = store.provide("a1", [entry()])
    writing, go_on = threading.Event(), threading.Event()

    def data() -> bytes:
        writing.set()
        assert go_on.wait(LIMIT_SECONDS)
        return bytes(SIZE)

    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(store.provide, "a2", [entry(data=data)])
        assert writing.wait(LIMIT_SECONDS)
        assert found(store, "a1") == path
        go_on.set()
        assert written.result(LIMIT_SECONDS).exists()


@pytest.fixture
def mapped_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows while another process has the files mapped: none can be replaced or removed."""

    def refused(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "in use", str(self))

    whole = Path.unlink
    monkeypatch.setattr(Path, "replace", refused)
    monkeypatch.setattr(Path, "unlink", lambda self, **k: (whole if "partial" in self.name else refused)(self, **k))


@pytest.mark.usefixtures("mapped_elsewhere")
def test_a_file_that_another_process_made_meanwhile_is_taken_where_it_cannot_be_replaced(
    store: Store, folder: Path
) -> None:
    def data() -> bytes:
        head = layout.header([("w", "U8", (SIZE,))], {"format": "pt", "pilotlight": "ab"})
        (folder / "ab.safetensors").write_bytes(head + bytes(SIZE))
        return bytes(SIZE)

    assert store.provide("ab", [entry(data=data)]).exists()
    assert names(folder) == {"ab.safetensors"}


@pytest.mark.usefixtures("mapped_elsewhere")
def test_a_damaged_file_that_cannot_be_replaced_is_not_taken(store: Store, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "ab.safetensors").write_bytes(b"noise")
    with pytest.raises(PermissionError):
        store.provide("ab", [entry()])
    assert names(folder) == {"ab.safetensors"}


def test_a_file_that_cannot_be_removed_is_skipped(small: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(small, "a1", "a2")

    def refused(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "in use", str(self))

    monkeypatch.setattr(Path, "unlink", refused)
    put(small, "a3")
    assert names(folder) == {"a1.safetensors", "a2.safetensors", "a3.safetensors"}


def test_a_file_that_somebody_else_writes_is_written_once_and_counts_as_the_others_do(tmp_path: Path) -> None:
    store = Store(tmp_path / "weights", reserve_bytes=0)
    written: list[Path] = []

    def write(path: Path) -> None:
        written.append(path)
        path.write_bytes(layout.header([("a", "U8", (4,))], {}) + b"abcd")

    path = store.provide_written("ab", 4, write)
    assert store.provide_written("ab", 4, write) == path
    assert len(written) == 1
    assert path.read_bytes().endswith(b"abcd")
    assert list(path.parent.iterdir()) == [path]
    store.release(path)
    store.release(path)


@pytest.mark.parametrize("content", [b"", layout.header([("a", "U8", (4,))], {}) + b"ab"], ids=["nothing", "a part"])
def test_a_file_that_somebody_else_did_not_write_whole_is_refused_and_leaves_nothing(
    content: bytes, tmp_path: Path
) -> None:
    store = Store(tmp_path / "weights", reserve_bytes=0)
    with pytest.raises(OSError, match="not whole"):
        store.provide_written("ab", 4, lambda path: path.write_bytes(content) and None)
    assert list((tmp_path / "weights").iterdir()) == []

"""The store of converted weights files, for models whose own files cannot be mapped directly."""

from __future__ import annotations

import errno
import os
import shutil
import string
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engine.errors import LoadFailed
from engine.units import GIB, MIB
from engine.weights.files import layout
from engine.weights.files.file_cache import write_soon

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_SUFFIX: Final = ".safetensors"
_PARTIAL: Final = ".partial"
_STALE_NS: Final = 3600 * 10**9
"""A partial file untouched for this long is left from a killed process, even if its number is in use again."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor to write."""

    name: str
    dtype: str
    """In safetensors' spelling."""
    shape: tuple[int, ...]
    parts: Callable[[], Iterable[ReadableBuffer]]
    """Returns the tensor's bytes in parts, in C order; called once, and each part is written before the next is made.

    Together they must have exactly the length given by `dtype` and `shape`.
    """


class _Refusal(OSError):
    """The store's own refusal, in words for the user."""


@dataclass(frozen=True, slots=True)
class _Kept:
    path: Path
    size: int
    used_ns: int


class Store:
    """Safetensors files by key, limited in total size; the least recently used are removed first.

    The key is a hex digest of everything that the content depends on. `provide` counts a use of the file that it
    returns, which is not removed until each use is ended by `release`. A use is recorded in the file's access time, not
    in its modification time, by which a change is detected.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limit_bytes: int = 16 * GIB,
        reserve_bytes: int = 256 * MIB,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Keep at most `limit_bytes` in `folder` and `reserve_bytes` of its disk free; touches no file yet."""
        self._folder = folder
        self._limit = limit_bytes
        self._reserve = reserve_bytes
        self._clock_ns = clock_ns
        self._writing = threading.Lock()  # held for a whole file, so that a second caller for it waits
        self._lock = threading.Lock()  # guards `_uses`, for at most one system call
        self._uses: Counter[Path] = Counter()

    def provide(self, key: str, entries: Sequence[Entry]) -> Path:
        """Return the file for `key`, written from `entries` if it does not exist, and count a use of it.

        An existing file is returned at once, even while another is being written.

        Raises OSError (ENOSPC, EFBIG, EIO, ...) with words for the user in `strerror` if it does not fit or cannot be
        written; no partial file is left. Raises ValueError if an entry's parts have the wrong length.
        """
        path = self._path(key)
        # Widest elements first: after 64-byte alignment at the start, each tensor is then aligned to its element.
        ordered = sorted(entries, key=lambda e: layout.ITEM_SIZES.get(e.dtype, 0), reverse=True)
        head = layout.header([(e.name, e.dtype, e.shape) for e in ordered], {"format": "pt", "pilotlight": key})
        return self._provided(path, lambda: self._write_once(path, head, ordered))

    def provide_written(self, key: str, nbytes: int, write: Callable[[Path], None]) -> Path:
        """Return the file for `key`, which `write` creates at the path that it gets if it does not exist.

        Otherwise as `provide`; `nbytes` is the approximate length. Raises the errors of `write`, and OSError if the
        result is no complete safetensors file.
        """
        path = self._path(key)
        return self._provided(path, lambda: self._let_write(path, nbytes, write))

    def _provided(self, path: Path, make_sure: Callable[[], None]) -> Path:
        self._use(path)
        try:
            make_sure()
        except OSError as error:
            self.release(path)
            if isinstance(error, _Refusal):
                raise
            reason = error.strerror or error
            raise OSError(error.errno, f"the folder {self._folder} cannot be written ({reason})") from error
        except BaseException:
            self.release(path)
            raise
        self._mark_used(path)
        return path

    def release(self, path: Path) -> None:
        """End one use of a path from `provide`; raises ValueError if it has none."""
        with self._lock:
            if not self._uses[path]:
                del self._uses[path]
                raise ValueError(f"{path} is not in use")
            self._uses[path] -= 1
            if not self._uses[path]:
                del self._uses[path]

    def _path(self, key: str) -> Path:
        if not key or not set(key) <= set(string.hexdigits):
            raise ValueError(f"{key!r} is not a hex digest")
        return self._folder / f"{key}{_SUFFIX}"

    def _use(self, path: Path) -> None:
        with self._lock:
            self._uses[path] += 1

    def _mark_used(self, path: Path) -> None:
        try:
            os.utime(path, ns=(self._clock_ns(), path.stat().st_mtime_ns))
        except OSError:
            pass  # as in a read-only folder; only the order of removal suffers

    def _write_once(self, path: Path, head: bytes, entries: Sequence[Entry]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        if not _is_whole(path, head):
            with self._writing:
                if not _is_whole(path, head):
                    self._write(path, head, entries)

    def _let_write(self, path: Path, nbytes: int, write: Callable[[Path], None]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        if _is_whole(path):
            return
        with self._writing:
            if _is_whole(path):
                return
            _remove(path)  # broken, if it exists
            self._make_room(nbytes)
            descriptor, partial = self._partial(path)
            os.close(descriptor)
            try:
                write(partial)
                _require_whole(partial)
                partial.replace(path)
            except BaseException:
                _remove(partial)
                raise

    def _partial(self, path: Path) -> tuple[int, Path]:
        prefix = f".{path.stem}.{os.getpid()}."
        descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=_PARTIAL, dir=self._folder)
        return descriptor, Path(name)

    def _write(self, path: Path, head: bytes, entries: Sequence[Entry]) -> None:
        _remove(path)  # broken, if it exists
        self._make_room(len(head) + sum(layout.size_of(e.dtype, e.shape) for e in entries))
        descriptor, partial = self._partial(path)
        try:
            # Unbuffered and in large parts, because the kernel then caches the file in large folios, which map with far
            # fewer page faults.
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                _write_all(file.write, memoryview(head))
                for entry in entries:
                    _write_entry(file, entry)
                os.fsync(file.fileno())
            if _is_whole(path, head):  # another process was faster, and may have mapped it by now
                partial.unlink()
            else:
                partial.replace(path)
        except BaseException:
            _remove(partial)
            raise

    def _make_room(self, wanted: int) -> None:
        """Remove files until `wanted` bytes fit; if that is impossible, remove none and raise _Refusal."""
        limit = f"{self._limit // MIB} MiB"
        if wanted > self._limit:
            raise _Refusal(
                errno.EFBIG, f"converted weights of {-(-wanted // MIB)} MiB exceed the cache's limit of {limit}"
            )
        kept = _kept(self._folder)
        with self._lock:
            used = set(self._uses)
        victims = _victims(kept, used, sum(file.size for file in kept) + wanted - self._limit)
        if victims is None:
            raise _Refusal(errno.ENOSPC, f"files in use fill the cache of converted weights ({limit})")
        free = shutil.disk_usage(self._folder).free + sum(file.size for file in victims)
        if free < wanted + self._reserve:
            raise _Refusal(
                errno.ENOSPC,
                f"the disk of {self._folder} has {free // MIB} MiB free, and "
                f"{-(-(wanted + self._reserve) // MIB)} MiB are needed ({self._reserve // MIB} of them stay free)",
            )
        for file in victims:
            with self._lock:  # a use counted since then keeps its file
                if not self._uses.get(file.path):
                    _remove(file.path)

    def _sweep(self) -> None:
        """Remove the partial files of processes that have ended."""
        for partial in self._folder.glob(f".*{_PARTIAL}"):
            try:
                left = self._clock_ns() - partial.stat().st_mtime_ns > _STALE_NS
                if left or not _is_running(partial.name.split(".")[2]):
                    partial.unlink()
            except OSError:
                pass  # removed by now, or still open in another process


def _is_running(process: str) -> bool:
    import psutil

    return process.isdecimal() and psutil.pid_exists(int(process))


def _victims(kept: Sequence[_Kept], used: set[Path], excess: int) -> list[_Kept] | None:
    """Return the least recently used files that hold `excess` bytes together; None if too few are unused."""
    victims: list[_Kept] = []
    for file in sorted((file for file in kept if file.path not in used), key=lambda file: file.used_ns):
        if excess <= 0:
            break
        victims.append(file)
        excess -= file.size
    return victims if excess <= 0 else None


def _kept(folder: Path) -> list[_Kept]:
    kept = []
    for path in folder.glob(f"*{_SUFFIX}"):
        try:
            status = path.stat()
        except OSError:
            continue  # removed by another process
        kept.append(_Kept(path, status.st_size, status.st_atime_ns))
    return kept


def _is_whole(path: Path, head: bytes | None = None) -> bool:
    """Whether the file exists with the length that its header gives and, if `head` is given, with that header."""
    try:
        places = layout.read(path)
        size = path.stat().st_size
        if head is not None:
            with path.open("rb") as file:
                if file.read(len(head)) != head:
                    return False
    except (LoadFailed, OSError):
        return False
    return size == max((place.begin + place.nbytes for place in places), default=size)


def _require_whole(path: Path) -> None:
    if not _is_whole(path):
        raise _Refusal(errno.EIO, "what was written is not whole")


def _write_entry(file: FileIO, entry: Entry) -> None:
    given, wanted = 0, layout.size_of(entry.dtype, entry.shape)
    for part in entry.parts():
        view = memoryview(part)
        given += view.nbytes
        if view.nbytes:  # a view with a zero in its shape cannot be cast
            begin = file.tell()
            _write_all(file.write, view.cast("B"))
            write_soon(file.fileno(), begin, view.nbytes)
    if given != wanted:
        raise ValueError(f"{entry.name!r} has {given} bytes, and its dtype and shape ask for {wanted}")


def _write_all(write: Callable[[memoryview], int | None], view: memoryview) -> None:
    while view:  # one call writes no more than 2 GiB
        view = view[write(view) or 0 :]


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except PermissionError:
        pass  # mapped, on Windows: the next write tries again

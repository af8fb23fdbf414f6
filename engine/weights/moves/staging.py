"""The upload to a device, through a ring of staging buffers that are filled and sent at the same time."""

from __future__ import annotations

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, ClassVar, Final

from engine.devices.backends import make_current
from engine.errors import FilesChanged
from engine.weights.files.identity import Identity
from engine.weights.files.inventory import Region
from engine.weights.moves.pinned import PinnedMemory

if TYPE_CHECKING:
    import torch

ALIGNMENT: Final = 256
"""Bytes; every piece of an arena begins at a multiple of it, like the device's own allocations."""

_BUFFER: Final = 4 << 20  # bytes
_BUFFERS: Final = 16
_READERS: Final = 8  # 4 to 7 GB/s each from the system's cache, and a bus of 16 lanes takes 25 to 50

CopyEvent = Any
"""The event after a copy, for `Uploader.wait`; opaque, None if the copy is complete already."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of bytes for an arena on a device."""

    offset: int
    """Its first byte in the arena; a multiple of ALIGNMENT."""
    source: torch.Tensor
    """Its bytes: (n,) uint8, contiguous, on the CPU."""
    file: tuple[Identity, int] | None = None
    """A file with the same bytes, and their offset in it, to be read instead of `source`.

    Reading makes no page of `source` resident, and a file that was cut short raises an error instead of ending the
    process. A copy of mapped pages would be up to 1.3 times as fast.
    """
    pinned: bool = False
    """Whether `source` is pinned memory; it must stay pinned until the device has received it."""

    @property
    def end(self) -> int:
        """The byte after it, in the arena."""
        return self.offset + int(self.source.numel())


Source = Callable[[Region, int], Piece]
"""Returns the piece for a region at an offset in an arena, with the current source of its bytes."""


def aligned(nbytes: int) -> int:
    """Round up to the next offset at which a piece may begin in an arena."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def lay_out(sizes: Iterable[int]) -> tuple[int, list[int]]:
    """Return the length of an arena for pieces of these sizes, in bytes, and the offset of each."""
    offsets, end = [], 0
    for size in sizes:
        offsets.append(aligned(end))
        end = offsets[-1] + size
    return end, offsets


class Uploader:
    """Copies bytes to one device, in large copies on its own stream, while reader threads fill the next buffers.

    Several threads may send at once. If memory cannot be pinned, or the device has no streams, a copy is complete when
    `send` returns.
    """

    _lock: ClassVar = threading.Lock()  # guards the next, and `_users` of each
    _of: ClassVar[dict[str, Uploader]] = {}

    def __init__(self, device: str) -> None:
        """Prepare for `device`, by torch's name with its number; buffers and threads are created on first use."""
        import torch

        self._device = torch.device(device)
        self._backend = torch.get_device_module(self._device.type)
        self._side = self._backend.Stream(self._device) if hasattr(self._backend, "Stream") else None
        self._buffers = tuple(_Buffer(device) for _ in range(_BUFFERS))
        self._free: SimpleQueue[_Buffer] = SimpleQueue()
        for buffer in self._buffers:
            self._free.put(buffer)
        readers = min(_READERS, os.cpu_count() or 1)
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix=f"engine-courier-{device}")
        self._users = 0

    @classmethod
    def of(cls, device: str) -> Uploader:
        """Return the uploader that all encoders on a device share; each call needs a `release`."""
        with cls._lock:
            uploader = cls._of.get(device) or cls._of.setdefault(device, cls(device))
            uploader._users += 1
            return uploader

    def release(self) -> None:
        """End one use; the last one frees its buffers and ends its threads."""
        with self._lock:
            self._users -= 1
            last = self._users == 0
            if last:
                del self._of[str(self._device)]
        if last:
            self.close()

    def close(self) -> None:
        """End the threads and free the buffers; no `send` may be in progress."""
        self._readers.shutdown()
        try:
            self.synchronize()
        finally:
            for buffer in self._buffers:
                buffer.close()

    def send(self, arena: torch.Tensor, pieces: Sequence[Piece]) -> CopyEvent:
        """Copy all pieces into `arena`, (n,) uint8 on the device; return once only pinned sources are still being read.

        Pieces less than ALIGNMENT bytes apart are sent as one, with the bytes between them. The device may still be
        copying: `wait` for the event. Raises FilesChanged or OSError if a file has changed, and the device's own
        errors; then no copy is in progress any more. Before the arena is freed, call `wait` or `before_current`:
        torch's `record_stream` is not used, because freeing such memory after an error of the device ends the process.
        """
        waiting: deque[tuple[_Load, _Buffer, Future[PinnedMemory]]] = deque()
        with self._within():
            try:
                for piece in pieces:
                    if piece.pinned and piece.source.numel():
                        arena[piece.offset : piece.end].copy_(piece.source, non_blocking=self._side is not None)
                for load in _loads(piece for piece in pieces if not piece.pinned):
                    # Another sender may be waiting for our buffers, so we send those before we wait for a free one.
                    while (buffer := self._idle()) is None and waiting:
                        self._enqueue(arena, *waiting.popleft())
                    buffer = buffer or self._free.get()
                    waiting.append((load, buffer, self._readers.submit(buffer.fill, load)))
                    while waiting and waiting[0][2].done():
                        self._enqueue(arena, *waiting.popleft())
                while waiting:
                    self._enqueue(arena, *waiting.popleft())
            except BaseException:
                wait([filling for _, _, filling in waiting])
                for _, buffer, _ in waiting:
                    self._free.put(buffer)
                self.synchronize()
                raise
            return None if self._side is None else self._side.record_event()

    def collect(self, memory: PinnedMemory, pieces: Sequence[Piece]) -> None:
        """Read all pieces into memory of the CPU, each to its offset; raises FilesChanged or OSError."""
        fillings = [self._readers.submit(_read, load, memory, load.begin) for load in _loads(pieces)]
        wait(fillings)
        for filling in fillings:
            filling.result()

    def wait(self, event: CopyEvent) -> None:
        """Make later computations wait for the copy; the host does not wait."""
        if event is not None:
            self._backend.current_stream(self._device).wait_event(event)

    def after_current(self) -> None:
        """Make later copies wait for the computations queued so far: for an arena that is new or was read."""
        if self._side is not None:
            self._side.wait_stream(self._backend.current_stream(self._device))

    def before_current(self) -> None:
        """Make later computations wait for all copies: before an arena is freed. The host does not wait."""
        if self._side is not None:
            with suppress(RuntimeError):  # a lost device runs nothing that could wait
                self._backend.current_stream(self._device).wait_stream(self._side)

    def synchronize(self) -> None:
        """Wait until all copies are complete."""
        if self._side is not None:
            self._side.synchronize()

    @contextmanager
    def _within(self) -> Iterator[None]:
        if self._side is None:
            yield
            return
        with make_current(str(self._device)), self._backend.stream(self._side):
            yield

    def _idle(self) -> _Buffer | None:
        try:
            return self._free.get_nowait()
        except Empty:
            return None

    def _enqueue(self, arena: torch.Tensor, load: _Load, buffer: _Buffer, filling: Future[PinnedMemory]) -> None:
        try:
            memory = filling.result()
            ahead = self._side is not None and memory.pinned
            arena[load.begin : load.end].copy_(memory.tensor[: load.end - load.begin], non_blocking=ahead)
            buffer.sent = self._side.record_event() if self._side is not None else None
        finally:
            self._free.put(buffer)


class _Buffer:
    """One buffer of the ring, free or used by one sender; `sent` is the event after the copy from it."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._memory: PinnedMemory | None = None
        self.sent: Any = None

    def fill(self, load: _Load) -> PinnedMemory:
        if self.sent is not None:
            with make_current(self._device):
                self.sent.synchronize()
        if self._memory is None:
            self._memory = PinnedMemory(_BUFFER, self._device)
        _read(load, self._memory)
        return self._memory

    def close(self) -> None:
        if self._memory is not None:
            self._memory.close()
            self._memory = None


@dataclass(frozen=True, slots=True)
class _Part:
    """A range of a piece's bytes."""

    piece: Piece
    begin: int
    size: int


@dataclass(slots=True)
class _Load:
    """The content of one buffer: parts that are neighbours in the arena, and their range there."""

    begin: int
    end: int
    parts: list[_Part]


def _loads(pieces: Iterable[Piece]) -> Iterator[_Load]:
    """Pack small neighbours together and split pieces larger than a buffer."""
    load: _Load | None = None
    for piece in sorted(pieces, key=lambda piece: piece.offset):
        at = piece.offset
        while at < piece.end:
            if load is not None and not (load.end <= at < load.end + ALIGNMENT and at < load.begin + _BUFFER):
                yield load
                load = None
            load = load or _Load(at, at, [])
            size = min(piece.end - at, load.begin + _BUFFER - at)
            load.parts.append(_Part(piece, at - piece.offset, size))
            at = load.end = at + size
    if load is not None:
        yield load


def _read(load: _Load, memory: PinnedMemory, begin: int = 0) -> None:
    """Read the bytes of a load into memory, from byte `begin` on."""
    address, target = memory.tensor.data_ptr(), memory.bytes
    with ExitStack() as opened:
        files: dict[Identity, FileIO] = {}
        for part in load.parts:
            to = begin + part.piece.offset + part.begin - load.begin
            if part.piece.file is None:
                ctypes.memmove(address + to, part.piece.source.data_ptr() + part.begin, part.size)
                continue
            identity, start = part.piece.file
            if identity not in files:
                files[identity] = opened.enter_context(identity.path.open("rb", buffering=0))
            _read_exactly(files[identity], start + part.begin, target[to : to + part.size])
        for identity, file in files.items():
            status = os.fstat(file.fileno())
            same = (status.st_size, status.st_mtime_ns) == (identity.size, identity.modified_ns)
            if changed := identity.changed() or (None if same else f"{identity.path} was replaced"):
                raise FilesChanged(f"{changed} since it was loaded.", next_step="Try again when the file is complete.")


def _read_exactly(file: FileIO, offset: int, target: memoryview) -> None:
    file.seek(offset)
    while target:
        read = file.readinto(target)
        if not read:
            raise FilesChanged(f"{file.name} was cut short.", next_step="Download or copy the model again.")
        target = target[read:]

"""The way up to a device: through a ring of buffers that are filled and sent at the same time."""

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

from engine.devices.backends import made_current
from engine.errors import FilesChanged
from engine.weights.files.identity import Identity
from engine.weights.files.inventory import Region
from engine.weights.moves.pinned import PinnedMemory

if TYPE_CHECKING:
    import torch

ALIGNMENT: Final = 256
"""Bytes; what lies in an arena begins at multiples of it, as the device's own allocations do."""

_BUFFER: Final = 4 << 20  # bytes
_BUFFERS: Final = 16
_READERS: Final = 8  # 4 to 7 GB/s each from the system's cache, and a bus of 16 lanes takes 25 to 50

CopyEvent = Any
"""What `Uploader.wait` takes; opaque."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of bytes for an arena on a device."""

    offset: int
    """Where it goes, in bytes; a multiple of ALIGNMENT."""
    source: torch.Tensor
    """Its bytes: (n,) uint8, contiguous, on the CPU."""
    file: tuple[Identity, int] | None = None
    """A file that has the same bytes, and where. They are read from there: that makes no page of `source` resident, and
    a file that was cut short is an error and not the end of the process. A copy of mapped pages is up to 1.3 times as
    fast."""
    pinned: bool = False
    """Whether `source` is pinned memory; it has to stay so until the device has it."""

    @property
    def end(self) -> int:
        """The byte after it, in the arena."""
        return self.offset + int(self.source.numel())


Source = Callable[[Region, int], Piece]
"""Says for a region, and the offset that it gets in an arena, where its bytes come from now."""


def aligned(nbytes: int) -> int:
    """Round up to where the next run of bytes may begin in an arena."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def laid_out(sizes: Iterable[int]) -> tuple[int, list[int]]:
    """Return the length of an arena for runs of these sizes, in bytes, and where each of them begins in it."""
    offsets, end = [], 0
    for size in sizes:
        offsets.append(aligned(end))
        end = offsets[-1] + size
    return end, offsets


class Uploader:
    """Sends bytes to one device, in large copies on a stream of their own while readers fill the next buffers.

    Several threads may send at once. Where memory cannot be pinned, or the device knows no streams, a copy is done
    when `send` returns.
    """

    _lock: ClassVar = threading.Lock()  # guards the next, and `_users` of each
    _of: ClassVar[dict[str, Uploader]] = {}

    def __init__(self, device: str) -> None:
        """Send to `device`, by torch's name with its number; buffers and threads come when they are needed."""
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
        """Return the one that all encoders on a device share; each use needs its `release`."""
        with cls._lock:
            uploader = cls._of.get(device) or cls._of.setdefault(device, cls(device))
            uploader._users += 1
            return uploader

    def release(self) -> None:
        """Count one use less; with the last one its buffers and threads go."""
        with self._lock:
            self._users -= 1
            last = self._users == 0
            if last:
                del self._of[str(self._device)]
        if last:
            self.close()

    def close(self) -> None:
        """End the threads and give the buffers back; nobody may be sending."""
        self._readers.shutdown()
        try:
            self.synchronize()
        finally:
            for buffer in self._buffers:
                buffer.close()

    def send(self, arena: torch.Tensor, pieces: Sequence[Piece]) -> CopyEvent:
        """Copy all pieces into `arena`, (n,) uint8 on the device; returns when nothing but pinned sources is read.

        What lies less than ALIGNMENT bytes apart is sent in one, the bytes between included. The device may still be
        copying: `wait` for the event. Raises FilesChanged or OSError when a file is not what it was, and what the
        device raises; then nothing is on its way any more. Before the arena goes, `wait` or `before_current`: it is not
        given to torch's `record_stream`, because to free such memory after an error of the device ends the process.
        """
        waiting: deque[tuple[_Load, _Buffer, Future[PinnedMemory]]] = deque()
        with self._within():
            try:
                for piece in pieces:
                    if piece.pinned and piece.source.numel():
                        arena[piece.offset : piece.end].copy_(piece.source, non_blocking=self._side is not None)
                for load in _loads(piece for piece in pieces if not piece.pinned):
                    # Another sender may need the buffers that this one has, so it waits for none before those are sent.
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
        """Let what is computed from now on wait for what was sent; the host does not."""
        if event is not None:
            self._backend.current_stream(self._device).wait_event(event)

    def after_current(self) -> None:
        """Let what is sent from now on wait for what is being computed: for an arena that is new or was read."""
        if self._side is not None:
            self._side.wait_stream(self._backend.current_stream(self._device))

    def before_current(self) -> None:
        """Let what is computed from now on wait for all that was sent; the host does not. For arenas that go."""
        if self._side is not None:
            with suppress(RuntimeError):  # a lost device computes nothing any more
                self._backend.current_stream(self._device).wait_stream(self._side)

    def synchronize(self) -> None:
        """Wait until all that was sent is there."""
        if self._side is not None:
            self._side.synchronize()

    @contextmanager
    def _within(self) -> Iterator[None]:
        if self._side is None:
            yield
            return
        with made_current(str(self._device)), self._backend.stream(self._side):
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
    """One place of the ring, which belongs to nobody or to one sender; `sent` happens when its bytes are there."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._memory: PinnedMemory | None = None
        self.sent: Any = None

    def fill(self, load: _Load) -> PinnedMemory:
        if self.sent is not None:
            with made_current(self._device):
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
    """Some bytes of a piece: the first one, and how many."""

    piece: Piece
    begin: int
    size: int


@dataclass(slots=True)
class _Load:
    """What goes into one buffer: parts that are neighbours in the arena, and where they begin and end there."""

    begin: int
    end: int
    parts: list[_Part]


def _loads(pieces: Iterable[Piece]) -> Iterator[_Load]:
    """Pack small neighbours together and cut what is larger than a buffer."""
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
    """Bring the bytes of a load together, from `begin` on."""
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

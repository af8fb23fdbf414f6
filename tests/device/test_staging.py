"""The way up to a device: every byte arrives where it belongs, and nothing stays behind when something fails."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_device import BACKEND, Card, Event, Stream
from fake_runtime import Runtime, installed

from engine.devices.allocator import empty_cache
from engine.errors import FilesChanged
from engine.weights.files.identity import Identity
from engine.weights.moves import pinned, staging
from engine.weights.moves.pinned import PinnedMemory
from engine.weights.moves.staging import ALIGNMENT, Piece, Uploader, lay_out

UNIT = 8192
"""Bytes; a buffer has four of them here, so that little is much."""
DEVICE = "fakegpu:0"
SIZES = [1, 300, 256, 7, 20 * UNIT + 13, 5, 8 * UNIT, 40, 3 * UNIT, 90 * UNIT + 1, 2]


@pytest.fixture(autouse=True)
def _small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "_BUFFER", 4 * UNIT)


@pytest.fixture
def runtime(card: Card, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """A device that can copy from memory that was registered with it."""
    return installed(monkeypatch)


@pytest.fixture
def uploader(card: Card) -> Iterator[Uploader]:
    uploader = Uploader(DEVICE)
    yield uploader
    uploader.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("engine-uploader")]


def noise(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def some_pieces(sizes: list[int] = SIZES) -> tuple[torch.Tensor, list[Piece]]:
    """An empty arena, and pieces for it."""
    nbytes, offsets = lay_out(sizes)
    pieces = [
        Piece(offset, noise(size, index)) for index, (size, offset) in enumerate(zip(sizes, offsets, strict=True))
    ]
    return torch.zeros(nbytes, dtype=torch.uint8, device=DEVICE), pieces


def sent(uploader: Uploader, arena: torch.Tensor, pieces: list[Piece]) -> None:
    uploader.after_current()
    uploader.wait(uploader.send(arena, pieces))


def arrived(arena: torch.Tensor, pieces: list[Piece]) -> bool:
    here = arena.cpu()
    return all(torch.equal(here[piece.offset : piece.end], piece.source) for piece in pieces)


def in_a_file(path: Path, pieces: list[Piece], before: int = 77) -> list[Piece]:
    """The same pieces, their bytes in a file and nowhere else."""
    path.write_bytes(bytes(before) + b"".join(piece.source.numpy().tobytes() for piece in pieces))
    identity, begin, found = Identity.of(path), before, []
    for piece in pieces:
        found.append(Piece(piece.offset, torch.zeros_like(piece.source), (identity, begin)))
        begin += piece.source.numel()
    return found


def idle(uploader: Uploader) -> bool:
    return uploader._free.qsize() == len(uploader._buffers)


# Sending


def test_every_byte_arrives_small_ones_together_and_large_ones_cut(card: Card, uploader: Uploader) -> None:
    arena, pieces = some_pieces()
    sent(uploader, arena, pieces[::-1])
    assert arrived(arena, pieces)
    assert card.to_device == arena.nbytes
    assert card.copies <= arena.nbytes // (4 * UNIT) + 2
    assert card.live == arena.nbytes
    assert idle(uploader)


def test_what_lies_between_pieces_that_are_far_apart_stays(uploader: Uploader) -> None:
    arena = torch.full((4096,), 9, dtype=torch.uint8, device=DEVICE)
    pieces = [Piece(0, noise(10)), Piece(256, noise(256)), Piece(1024, noise(3)), Piece(2048, noise(0))]
    sent(uploader, arena, pieces)
    assert arrived(arena, pieces)
    here = arena.cpu()
    assert (here[512:1024] == 9).all()
    assert (here[1027:] == 9).all()


def test_bytes_that_a_file_has_are_read_from_there(tmp_path: Path, uploader: Uploader) -> None:
    arena, pieces = some_pieces()
    filed = in_a_file(tmp_path / "weights", pieces)
    sent(uploader, arena, [*filed[:3], pieces[3], *filed[4:]])
    assert arrived(arena, pieces)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: os.utime(file, ns=(1, 1)),
        lambda file: os.truncate(file, 100),
        lambda file: file.unlink(),
        lambda file: (file.with_name("new").write_bytes(file.read_bytes()), file.with_name("new").replace(file)),
    ],
    ids=["touched", "truncated", "deleted", "replaced"],
)
def test_a_file_that_changed_is_not_sent(change: Callable[[Path], Any], tmp_path: Path, uploader: Uploader) -> None:
    arena, pieces = some_pieces()
    filed = in_a_file(tmp_path / "weights", pieces)
    change(tmp_path / "weights")
    with pytest.raises((FilesChanged, OSError)):
        uploader.send(arena, filed)
    assert idle(uploader)
    sent(uploader, arena, pieces)
    assert arrived(arena, pieces)


def test_a_copy_that_fails_leaves_every_buffer_free(card: Card, uploader: Uploader) -> None:
    arena, pieces = some_pieces()
    sent(uploader, arena, pieces)
    count = card.copies
    for nth in range(1, count + 1):
        card.fail_copy(nth)
        with pytest.raises(RuntimeError, match="a copy of"):
            uploader.send(arena, pieces)
        assert idle(uploader)
    sent(uploader, arena, pieces)
    assert arrived(arena, pieces)


def test_several_senders_share_the_buffers(uploader: Uploader) -> None:
    uploads = [some_pieces([n * UNIT + 5, 3, 20 * UNIT]) for n in range(1, 7)]
    start = threading.Barrier(len(uploads))

    def work(arena: torch.Tensor, pieces: list[Piece]) -> bool:
        start.wait(60)
        for _ in range(3):
            sent(uploader, arena, pieces)
        return arrived(arena, pieces)

    with ThreadPoolExecutor(len(uploads)) as pool:
        assert all(future.result(120) for future in [pool.submit(work, *one) for one in uploads])
    assert idle(uploader)


# Buffers and threads


def test_the_encoders_of_a_device_share_one_and_it_ends_with_the_last_use(runtime: Runtime) -> None:
    first, second = Uploader.of(DEVICE), Uploader.of(DEVICE)
    assert first is second
    sent(first, *some_pieces())
    assert any(thread.name.startswith(f"engine-courier-{DEVICE}") for thread in threading.enumerate())
    assert len(runtime.registered) == len(first._buffers)
    first.release()
    sent(second, *some_pieces([10]))
    second.release()
    assert runtime.registered == {}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("engine-uploader")]
    third = Uploader.of(DEVICE)
    assert third is not first
    third.release()


def test_another_device_has_one_of_its_own(cards: tuple[Card, Card]) -> None:
    first, second = Uploader.of("fakegpu:0"), Uploader.of("fakegpu:1")
    assert first is not second
    first.release()
    second.release()


class Sent(Event):
    """A copy that is on its way until somebody waits for it."""

    waited = 0

    def synchronize(self) -> None:
        """Count."""
        type(self).waited += 1


class Side(Stream):
    """A stream that says when the host waited for it."""

    waited = 0

    def record_event(self, event: Event | None = None) -> Event:
        """Return one that counts."""
        return Sent()

    def synchronize(self) -> None:
        """Count."""
        type(self).waited += 1


def test_a_buffer_is_filled_again_only_after_its_copy_is_done(
    runtime: Runtime, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BACKEND, "Stream", Side, raising=False)
    monkeypatch.setattr(Sent, "waited", 0)
    monkeypatch.setattr(Side, "waited", 0)
    uploader = Uploader(DEVICE)
    arena, pieces = some_pieces()
    uploader.send(arena, pieces)
    assert Sent.waited == card.copies - len(uploader._buffers) > 0
    assert Side.waited == 0, "the host goes on while the device copies"
    card.fail_copy(2)
    with pytest.raises(RuntimeError, match="a copy of"):
        uploader.send(arena, pieces)
    assert Side.waited == 1, "nothing is on its way from a buffer or to an arena that the caller drops"
    uploader.close()
    assert Side.waited == 2


def test_what_names_no_device_is_asked_while_the_right_one_is_the_threads_own(
    runtime: Runtime, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = threading.local()

    @contextmanager
    def device(name: str) -> Iterator[None]:
        own.device = name
        yield
        own.device = None

    def asked(call: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*args: Any) -> Any:
            assert getattr(own, "device", None) == DEVICE, f"{call.__name__} would start a context on the first card"
            return call(*args)

        return ask

    monkeypatch.setattr(BACKEND, "device", device, raising=False)
    monkeypatch.setattr(BACKEND, "Stream", Side, raising=False)
    monkeypatch.setattr(Sent, "synchronize", asked(Sent.synchronize))
    monkeypatch.setattr(BACKEND, "empty_cache", asked(BACKEND.empty_cache))
    monkeypatch.setattr(BACKEND, "stream", asked(BACKEND.stream))
    monkeypatch.setattr(runtime, "cudaHostRegister", asked(runtime.cudaHostRegister))
    monkeypatch.setattr(runtime, "cudaHostUnregister", asked(runtime.cudaHostUnregister))
    uploader = Uploader(DEVICE)
    arena, pieces = some_pieces()
    sent(uploader, arena, pieces)
    assert len(runtime.registered) == len(uploader._buffers)
    uploader.close()
    empty_cache(DEVICE)
    assert runtime.registered == {}
    assert arrived(arena, pieces)


def test_memory_is_pinned_on_a_thread_that_computes_nothing(
    runtime: Runtime, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    register = runtime.cudaHostRegister
    monkeypatch.setattr(
        runtime, "cudaHostRegister", lambda *args: (seen.append(threading.get_ident()), register(*args))[1]
    )
    PinnedMemory(UNIT, DEVICE).close()
    assert len(seen) == 1
    assert threading.get_ident() not in seen


def test_arenas_may_go_after_the_device_was_lost(uploader: Uploader, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[Stream] = []
    monkeypatch.setattr(Stream, "wait_stream", lambda self, other: waits.append(other))
    uploader.before_current()
    assert waits == [uploader._side]

    def lost(self: Stream, other: Stream) -> None:
        raise RuntimeError("CUDA error: unknown error")

    monkeypatch.setattr(Stream, "wait_stream", lost)
    uploader.before_current()


# Pinned memory


def test_pinned_memory_is_registered_until_it_is_closed_and_then_unmapped(runtime: Runtime) -> None:
    memory = PinnedMemory(3 * UNIT, DEVICE)
    assert memory.pinned
    assert runtime.registered == {memory.tensor.data_ptr(): 3 * UNIT}
    memory.tensor.fill_(7)
    assert memory.bytes[5] == 7
    mapped = weakref.ref(memory._memory)
    memory.close()
    assert runtime.registered == {}
    assert mapped() is None
    memory.close()


def test_memory_that_the_driver_refuses_is_plain_and_that_is_said_once(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    runtime.refuses = True
    pinned._say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        uploader = Uploader(DEVICE)
        arena, pieces = some_pieces()
        sent(uploader, arena, pieces)
    assert arrived(arena, pieces)
    assert [record.message for record in caplog.records] == [
        "memory is not pinned for fakegpu, so copies to it are slower: CUDA error 2"
    ]
    uploader.close()


def test_a_pinned_source_goes_straight_to_the_device(runtime: Runtime, card: Card, uploader: Uploader) -> None:
    memory = PinnedMemory(2 * UNIT, DEVICE)
    uploader.collect(memory, [Piece(0, noise(UNIT)), Piece(UNIT + ALIGNMENT, noise(50, 1))])
    assert torch.equal(memory.tensor[:UNIT], noise(UNIT))
    arena = torch.zeros(UNIT, dtype=torch.uint8, device=DEVICE)
    sent(uploader, arena, [Piece(0, memory.tensor[:UNIT], pinned=True)])
    assert torch.equal(arena.cpu(), noise(UNIT))
    assert len(runtime.registered) == 1, "no buffer was needed"
    memory.close()

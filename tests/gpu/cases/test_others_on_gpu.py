"""Other programs that want VRAM, and a computer that goes to sleep, on a real GPU."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from measured import GIB, MIB, Gpu
from subjects import NAME, TEXTS, Subject

from engine import Engine, State
from engine.events import Event, StateChanged

Start = Callable[..., Engine]
SMALL = pytest.mark.parametrize("subject", ["minilm"], indirect=True)
TAKER = """
import sys, torch
torch.cuda.set_device(sys.argv[1])
taken = None
for line in sys.stdin:
    taken = torch.ones(int(line), dtype=torch.uint8, device=sys.argv[1]) if int(line) else None
    torch.cuda.empty_cache()
    torch.cuda.synchronize()
    print("done", flush=True)
"""


class Another:
    """Another program on the GPU, which takes memory when it is told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Wait until the process has its context."""
        self._process = process
        self._hold(0)

    @contextmanager
    def holding(self, nbytes: int) -> Iterator[None]:
        """Hold `nbytes` meanwhile, beside the context."""
        self._hold(nbytes)
        try:
            yield
        finally:
            self._hold(0)

    def _hold(self, nbytes: int) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(nbytes, file=self._process.stdin, flush=True)
        assert self._process.stdout.readline() == "done\n"


@pytest.fixture(scope="session")
def another(gpu: Gpu) -> Iterator[Another]:
    """One process for all models: it takes seconds to import torch."""
    command = [sys.executable, "-c", TAKER, gpu.device]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Another(process)
        finally:
            process.kill()


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Return whether the condition came true in time."""
    ends = time.monotonic() + seconds
    while not condition() and time.monotonic() < ends:
        time.sleep(0.05)
    return condition()


def test_an_idle_encoder_makes_way_for_another_program(
    start: Start, subject: Subject, gpu: Gpu, another: Another
) -> None:
    """The engine keeps all but a little free, so that the other program does not have to fill the card."""
    if gpu.free() < subject.total + 4 * GIB:
        pytest.skip(f"there are only {gpu.free() / GIB:.1f} GiB of free VRAM")
    # The weights, what a first batch takes and a margin for other programs on the card.
    keep = gpu.free() - subject.total - 768 * MIB
    engine = start(subject, keep_free_vram=keep / MIB)
    events: list[Event] = []
    engine.events.subscribe(events.append)
    wanted = engine.dense(NAME).encode(TEXTS)
    assert not wait_for(lambda: engine.view(NAME).state is not State.ON_DEVICE, seconds=3.0)
    with another.holding(GIB + GIB // 2):
        assert wait_for(lambda: engine.view(NAME).state is State.IN_RAM)
    reasons = [event.reason for event in events if isinstance(event, StateChanged) and event.reason]
    assert any("another program needs VRAM" in reason for reason in reasons)
    assert (engine.dense(NAME).encode(TEXTS) == wanted).all()


@SMALL
def test_what_just_came_up_stays_for_its_minimum_residency(start: Start, subject: Subject, gpu: Gpu) -> None:
    keep = gpu.free() / MIB + 1
    engine = start(subject, keep_free_vram=keep, minimum_residency_seconds=3600)
    engine.dense(NAME).encode(TEXTS)
    assert not wait_for(lambda: engine.view(NAME).state is not State.ON_DEVICE, seconds=4.0)


def test_nothing_is_left_on_the_gpu_while_the_computer_sleeps(start: Start, subject: Subject, gpu: Gpu) -> None:
    engine = start(subject)
    wanted = engine.dense(NAME).encode(TEXTS)
    high = gpu.allocated()
    engine.suspend()
    assert engine.view(NAME).state is State.IN_RAM
    assert high - gpu.allocated() >= subject.total
    engine.resume()
    assert (engine.dense(NAME).encode(TEXTS) == wanted).all()
    assert engine.view(NAME).device == gpu.device


@SMALL
def test_a_pinned_encoder_leaves_the_gpu_for_the_sleep_too(start: Start, subject: Subject, gpu: Gpu) -> None:
    engine = start(subject, {"pin": True})
    wanted = engine.dense(NAME).encode(TEXTS)
    engine.suspend()
    assert engine.view(NAME).bytes_on_device == 0
    engine.resume()
    assert (engine.dense(NAME).encode(TEXTS) == wanted).all()

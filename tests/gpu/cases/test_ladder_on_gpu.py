"""Moves to a real GPU and back with real encoders, judged by the allocator, the profiler and NVML."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from measured import MIB, Gpu, handles, rss
from subjects import NAME, TEXTS, Subject, engine_on

from engine import Engine, State

Start = Callable[..., Engine]
MAPPED = pytest.mark.parametrize("home", ["mapped"], indirect=True)


@pytest.fixture(scope="module", params=["mapped", "pinned", "disk"])
def home(request: pytest.FixtureRequest) -> str:
    """The place of the weights while they are off the GPU."""
    return str(request.param)


@pytest.fixture(scope="module")
def shared(gpu: Gpu, subject: Subject, home: str) -> Iterator[Engine]:
    """One engine for all cases with one model and one home, since each load of a large one takes seconds."""
    with engine_on(gpu, subject, {"home": home}) as engine:
        yield engine


@pytest.fixture
def engine(shared: Engine, gpu: Gpu) -> Engine:
    """The shared engine, with nothing on the GPU."""
    shared.offload(NAME)
    gpu.empty_cache()
    return shared


def below(home: str) -> State:
    """Return the state after a step down: with its home on the disk an encoder unloads."""
    return State.UNLOADED if home == "disk" else State.IN_RAM


@pytest.mark.parametrize(("dtype", "most"), [("auto", 1e-5), ("float32", 1e-5), ("float16", 5e-3), ("bfloat16", 3e-2)])
def test_the_vectors_are_those_of_the_cpu(start: Start, subject: Subject, dtype: str, most: float) -> None:
    vectors = start(subject, {"dtype": dtype}).dense(NAME).encode(TEXTS)
    found = float(np.abs(vectors - subject.wanted).max())
    print(f"{dtype}: {found:.1e} from the CPU")
    assert vectors.dtype == np.float32
    assert found <= most


def test_auto_takes_the_gpu(start: Start, subject: Subject) -> None:
    engine = start(subject, device="auto")
    engine.load(NAME)
    assert str(engine.view(NAME).device).startswith("cuda:")


def test_the_weights_are_on_the_gpu_and_their_files_pages_given_back(
    engine: Engine, subject: Subject, gpu: Gpu, home: str
) -> None:
    before = gpu.allocated()
    engine.load(NAME)
    view = engine.view(NAME, measured=True)
    assert (view.state, view.device) == (State.ON_DEVICE, gpu.device)
    assert view.bytes_on_device is not None
    assert subject.total <= view.bytes_on_device <= gpu.allocated() - before
    if home != "pinned" and view.bytes_in_ram is not None:
        assert view.bytes_in_ram < 0.01 * subject.total


def test_stepping_down_gives_the_bytes_back(engine: Engine, subject: Subject, gpu: Gpu, home: str) -> None:
    engine.dense(NAME).encode(TEXTS)  # workspaces of the first computation stay
    engine.offload(NAME)
    gc.collect()
    low = gpu.allocated()
    engine.dense(NAME).encode(TEXTS)
    high, held = gpu.allocated(), gpu.of_process()
    assert high - low >= subject.total
    outcome = engine.offload(NAME)
    assert (outcome.result, outcome.state) == ("done", below(home))
    assert gpu.allocated() == low
    assert engine.view(NAME).bytes_on_device == 0
    if held is None:
        print("NVML does not say what this process holds")
        return
    left = gpu.of_process(lambda now: held - now >= 0.9 * subject.total)
    assert left is not None
    print(f"NVML: {held / MIB:.0f} MiB before, {left / MIB:.0f} after, weights {subject.total / MIB:.0f}")
    assert held - left >= 0.9 * subject.total


@MAPPED
def test_stepping_down_copies_nothing_to_the_host(engine: Engine, gpu: Gpu) -> None:
    dense = engine.dense(NAME)
    dense.encode(TEXTS)
    if not any("DtoH" in name for name in gpu.copies(lambda: dense.encode(TEXTS))):
        pytest.skip("the profiler sees no copies here")  # an encode's vectors come down
    assert gpu.copies(lambda: engine.offload(NAME)) == []


def test_coming_back_gives_the_same_vectors_to_the_bit(engine: Engine, home: str) -> None:
    first = engine.dense(NAME).encode(TEXTS)
    loads = engine.view(NAME).loads
    for _ in range(3):
        engine.offload(NAME)
        engine.load(NAME)
        assert (engine.dense(NAME).encode(TEXTS) == first).all()
    assert engine.view(NAME).loads - loads == (3 if home == "disk" else 0)


def test_unloading_leaves_neither_vram_nor_pinned_memory(engine: Engine, subject: Subject, gpu: Gpu) -> None:
    engine.dense(NAME).encode(TEXTS)
    engine.unload(NAME)  # memory that the libraries keep is taken now
    low, resident = gpu.allocated(), rss()
    engine.dense(NAME).encode(TEXTS)
    outcome = engine.unload(NAME)
    assert (outcome.result, outcome.state) == ("done", State.UNLOADED)
    assert gpu.allocated() == low
    assert rss() - resident <= max(32 * MIB, 0.05 * subject.total)
    if hasattr(torch.cuda, "host_memory_stats"):
        torchs_own = torch.cuda.host_memory_stats().get("allocated_bytes.current", 0)
        assert torchs_own <= MIB, "torch does not give its pinned memory back"


@MAPPED
def test_many_cycles_leak_nothing(engine: Engine, subject: Subject, gpu: Gpu) -> None:
    many = 50 if subject.name == "minilm" else 12  # each takes a fifth of a second with the large one

    def cycles(count: int) -> tuple[int, int | None, int, int]:
        for _ in range(count):
            engine.dense(NAME).encode(TEXTS)
            assert engine.offload(NAME).result == "done"
        gc.collect()
        return gpu.allocated(), gpu.of_process(), rss(), handles()

    allocated, held, resident, opened = cycles(5)
    allocated_after, held_after, resident_after, opened_after = cycles(many)
    assert allocated_after == allocated
    assert resident_after - resident <= 32 * MIB
    assert opened_after - opened <= 2
    if held is not None and held_after is not None:
        assert held_after - held <= 8 * MIB


@pytest.mark.parametrize("subject", ["minilm"], indirect=True)
def test_a_write_on_the_gpu_is_kept(start: Start, subject: Subject) -> None:
    engine = start(subject)
    first = engine.dense(NAME).encode(TEXTS)

    def damage(adapter: object) -> None:
        with torch.no_grad():
            next(adapter._module.parameters()).mul_(0.5)  # type: ignore[attr-defined]

    engine.call(NAME, damage)
    changed = engine.dense(NAME).encode(TEXTS)
    assert np.abs(changed - first).max() > 1e-3
    assert engine.offload(NAME).state is State.UNLOADED
    assert np.abs(engine.dense(NAME).encode(TEXTS) - changed).max() <= 1e-5

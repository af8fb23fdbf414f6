"""A torch adapter over a real module and real files: what it leaves in memory, and what it says of it."""

from __future__ import annotations

import ctypes
import gc
import logging
import mmap
import os
import re
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from engine.adapters.base.torch_module import TorchAdapter
from engine.errors import LoadFailed
from engine.events import Event, StateChanged
from engine.settings.config import EncoderConfig
from engine.settings.effective import Timeouts
from engine.slot.slot import Slot
from engine.state import State
from engine.weights.files import file_backing
from engine.weights.home import Home

MIB = 1 << 20
ROWS, WIDTH = 8192, 512  # 16 MiB of which a use needs one row

pytestmark = pytest.mark.usefixtures("own_cache")


Meddle = Callable[[nn.Module, Path], None]


class Tiny(nn.Module):
    """An embedding and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(ROWS, WIDTH)
        self.layer = nn.Linear(WIDTH, 4)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.layer(self.table(rows))
        return vectors


class TinyAdapter(TorchAdapter):
    """Reads a `Tiny`; `meddle` sees each module before it is handed over."""

    packages: ClassVar[tuple[str, ...]] = ("torch",)

    def __init__(self, config: EncoderConfig, device: str = "cpu") -> None:
        super().__init__(config, device)
        self.built: list[weakref.ref[nn.Module]] = []
        self.meddle: Meddle = lambda module, folder: None

    def _import_library(self) -> str:
        return "a test 1"

    def _construct(self, folder: Path) -> Any:
        module = Tiny().eval()
        module.load_state_dict(load_file(folder / "model.safetensors"))
        self.built.append(weakref.ref(module))
        self.meddle(module, folder)
        return module

    def use(self) -> torch.Tensor:
        with torch.inference_mode():
            vectors: torch.Tensor = self._module(torch.tensor([5]))
            return vectors

    def keep(self) -> torch.Tensor:
        """What somebody outside holds on to."""
        bias: torch.Tensor = self._module.layer.bias
        return bias

    def write(self, value: float) -> None:
        with torch.no_grad():
            self._module.layer.bias[1] = value


class SlotBench:
    """A slot over a tiny adapter; `seen` is called for every event, as it is published."""

    def __init__(self, folder: Path, device: str = "cpu", **settings: Any) -> None:
        self.adapter = TinyAdapter(EncoderConfig("tiny", "dense", str(folder), **settings), device)
        self.events: list[StateChanged] = []
        self.seen: Callable[[StateChanged], None] = lambda event: None
        self.slot = Slot("tiny", self.adapter, Timeouts(0.0, 0.0), publish=self._on_event)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, StateChanged):
            self.events.append(event)
            self.seen(event)

    def use(self) -> torch.Tensor:
        with self.slot.lease():
            return self.adapter.use()

    def view(self) -> Any:
        return self.slot.view(measured=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    save_file(Tiny().state_dict(), folder / "model.safetensors")
    return folder


@pytest.fixture
def file(folder: Path) -> Path:
    return folder / "model.safetensors"


@pytest.fixture
def bench(folder: Path) -> Iterator[SlotBench]:
    bench = SlotBench(folder)
    yield bench
    assert bench.slot.close(5.0)


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Nothing is freed but by reference counts."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def smaps(path: Path) -> int:
    """Resident bytes that smaps counts for the mappings of a file."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = line.endswith(f" {path.resolve()}")
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def mappings(path: Path) -> int:
    return Path("/proc/self/maps").read_text(encoding="utf-8").count(f" {path.resolve()}\n")


def cached(path: Path) -> int:
    """Bytes of a file that are in the system's cache, from mincore(2)."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as memory:
        first = ctypes.c_char.from_buffer(memory)
        found = (ctypes.c_ubyte * -(-len(memory) // mmap.PAGESIZE))()
        length = ctypes.c_size_t(len(memory))
        assert ctypes.CDLL(None).mincore(ctypes.byref(first), length, found) == 0
        del first
        return sum(page & 1 for page in found) * mmap.PAGESIZE


def forget(path: Path) -> None:
    """Drop a file from the system's cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# A load that fails: the frames of its errors hold the module


def _raise(module: nn.Module, folder: Path) -> None:
    raise RuntimeError("half-way")


def _raise_from_another(module: nn.Module, folder: Path) -> None:
    try:
        _raise(module, folder)
    except RuntimeError as error:
        raise LoadFailed("The file is of another kind.") from error


def _raise_after_another(module: nn.Module, folder: Path) -> None:
    try:
        _raise(module, folder)
    except RuntimeError:
        raise OSError("while that was handled")  # noqa: B904 - the case is the error without a cause


def _touch(module: nn.Module, folder: Path) -> None:
    """The home will notice that the file is no longer the one that was read."""
    os.utime(folder / "model.safetensors")


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("meddle", [_raise, _raise_from_another, _raise_after_another, _touch])
def test_a_failed_loads_module_is_dead_when_the_failure_is_told_although_its_error_is_kept(
    bench: SlotBench, file: Path, meddle: Meddle
) -> None:
    alive: list[bool] = []

    def look(event: StateChanged) -> None:
        if event.new is State.FAILED:
            alive.append(bench.adapter.built[-1]() is not None or mappings(file) > 0)

    bench.seen = look
    bench.adapter.meddle = meddle
    kept = []
    for _ in range(2):
        with pytest.raises(LoadFailed) as failure:
            bench.slot.retry()
        kept.append(failure.value)
    assert alive == [False, False]
    assert all(error.__traceback__ for error in kept)
    assert (bench.view().bytes_on_device, bench.view().bytes_in_ram, bench.view().note) == (0, 0, None)


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("step", ["restore", "fault_in", "to_device", "footprint"])
def test_a_module_whose_home_fails_is_dead_when_the_failure_is_told_although_its_error_is_kept(
    bench: SlotBench, file: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(home: Home, *_: object) -> None:
        standing = home._regions
        raise MemoryError(f"no room for {len(standing)}")

    alive: list[bool] = []

    def look(event: StateChanged) -> None:
        if event.new is State.FAILED:
            alive.append(bench.adapter.built[-1]() is not None or mappings(file) > 0)

    bench.seen = look
    with monkeypatch.context() as patched:
        patched.setattr(Home, step, fail)
        with pytest.raises(LoadFailed, match="MemoryError: no room for") as failure:
            bench.slot.warm()
    assert alive == [False]
    assert failure.value.__cause__ is not None
    assert failure.value.__cause__.__traceback__ is not None
    bench.slot.retry()
    assert torch.isfinite(bench.use()).all()


# All pages, or those that a use needs


def test_warming_leaves_the_weights_resident_and_a_first_use_only_what_it_needs(bench: SlotBench, file: Path) -> None:
    bench.slot.warm()
    assert smaps(file) >= 0.95 * file.stat().st_size
    assert bench.view().bytes_on_device == smaps(file)
    bench.slot.unload()
    bench.use()
    assert 0 < smaps(file) <= 0.3 * file.stat().st_size
    assert bench.view().bytes_on_device == smaps(file)
    bench.slot.offload()
    bench.slot.warm()
    assert smaps(file) >= 0.95 * file.stat().st_size


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="nobody can be asked to forget a file")
@pytest.mark.parametrize("streamed", [True, False])
def test_reading_ahead_what_will_be_streamed_fills_the_systems_cache_and_not_the_process(
    folder: Path, file: Path, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = SlotBench(folder, stream_layers=streamed)
    load = TinyAdapter.load

    def load_and_forget(adapter: TinyAdapter, on: str | None = None) -> Any:
        loaded = load(adapter, on)
        forget(file)  # as when other files have taken its place meanwhile
        assert cached(file) == 0
        return loaded

    monkeypatch.setattr(TinyAdapter, "load", load_and_forget)
    bench.slot.preload()
    assert bench.view().state is State.IN_RAM
    assert cached(file) >= 0.95 * file.stat().st_size
    if streamed:
        assert (smaps(file), bench.view().bytes_in_ram) == (0, 0)
    else:
        assert smaps(file) >= 0.95 * file.stat().st_size
        assert bench.view().bytes_in_ram == smaps(file)
    assert bench.use().shape == (1, 4)
    assert bench.slot.close(5.0)


# Weights that somebody keeps


def test_two_leaked_homes_are_both_counted_until_they_go(bench: SlotBench, file: Path) -> None:
    kept, sizes = [], []
    for number in (1, 2):
        bench.slot.warm()
        kept.append(bench.adapter.keep())
        outcome = bench.slot.unload()
        assert (outcome.result, outcome.state) == ("refused", State.UNLOADED)
        assert mappings(file) == number
        assert bench.view().bytes_in_ram == bench.adapter.footprint().in_ram == smaps(file)
        sizes.append(smaps(file))
    assert sizes[1] >= 1.9 * sizes[0] >= 1.9 * 0.95 * file.stat().st_size
    del kept[0]
    assert bench.adapter.footprint().in_ram == smaps(file) == pytest.approx(sizes[0], rel=0.05)
    bench.use()
    assert bench.adapter.footprint().held == smaps(file), "beside the one that works"
    assert bench.slot.unload().result == "refused"
    kept.clear()
    assert (bench.adapter.footprint().in_ram, mappings(file)) == (0, 0)
    bench.use()
    assert bench.slot.unload().result == "done"
    assert bench.view().bytes_in_ram == 0


def test_an_unload_from_ram_that_somebody_stands_in_the_way_of_is_refused_with_the_reason(
    bench: SlotBench, file: Path
) -> None:
    bench.use()
    kept = bench.adapter.keep()
    assert bench.slot.offload().state is State.IN_RAM
    assert smaps(file) == 0
    outcome = bench.slot.unload()
    assert (outcome.result, outcome.freed_bytes, mappings(file)) == ("refused", 0, 1)
    assert outcome.reason is not None
    assert outcome.reason.endswith("of its weights was not given back, because something still refers to them.")
    last = bench.events[-1]
    assert last.error is not None
    assert (last.new, last.error.title) == (State.UNLOADED, "Memory not given back")
    assert kept.shape == (4,)


# What the module wrote


def test_kept_writes_are_counted_while_it_is_unloaded_and_not_twice_after_the_next_load(
    bench: SlotBench, file: Path
) -> None:
    bench.use()
    bench.adapter.write(42.0)
    assert bench.slot.unload().result == "done"
    bias = 4 * 4  # four elements, and no other tensor was written to
    assert (bench.view().bytes_on_device, bench.view().bytes_in_ram) == (0, bias)
    for _ in range(3):
        bench.slot.warm()
        assert bench.adapter.keep()[1] == 42
        footprint = bench.adapter.footprint()
        assert (footprint.in_ram, footprint.on_device) == (0, smaps(file))
        assert bench.slot.unload().result == "done"
        assert bench.adapter.footprint().in_ram == bias


def test_kept_writes_are_no_longer_counted_once_the_file_is_another(folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "model"
    copied.mkdir()
    (copied / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    bench = SlotBench(copied)
    before = bench.use()
    bench.adapter.write(42.0)
    bench.slot.unload()
    os.utime(copied / "model.safetensors", ns=(1, 1))
    assert torch.equal(bench.use(), before)
    bench.slot.unload()
    assert bench.adapter.footprint().held == 0
    assert bench.slot.close(5.0)


@pytest.mark.usefixtures("uncollected")
def test_an_unload_goes_on_when_what_the_module_wrote_cannot_be_kept(
    bench: SlotBench, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(home: Home) -> None:
        raise RuntimeError("no memory for a copy")

    bench.use()
    bench.adapter.write(42.0)
    with monkeypatch.context() as patched, caplog.at_level(logging.ERROR):
        patched.setattr(Home, "writes", fail)
        outcome = bench.slot.unload()
    assert (outcome.result, outcome.state) == ("done", State.UNLOADED)
    assert (bench.adapter.built[-1](), mappings(file), bench.adapter.footprint().held) == (None, 0, 0)
    assert "what tiny wrote into its weights is lost" in caplog.text
    assert "no memory for a copy" in caplog.text
    bench.use()
    assert bench.adapter.keep()[1] != 42


@pytest.mark.usefixtures("uncollected")
def test_an_unload_goes_on_when_the_comparison_with_the_file_fails_half_way(
    bench: SlotBench, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(left: torch.Tensor, right: torch.Tensor) -> bool:
        raise RuntimeError("no memory to compare")

    bench.use()
    bench.adapter.write(42.0)
    with monkeypatch.context() as patched:
        patched.setattr(file_backing, "same", fail)
        outcome = bench.slot.unload()
    assert (outcome.result, mappings(file), bench.adapter.footprint().held) == ("done", 0, 0)
    assert "no memory to compare" in caplog.text


# Another device than the settings ask for


def test_the_fallback_to_the_cpu_is_in_the_view_and_told_once(folder: Path) -> None:
    bench = SlotBench(folder, device="nonsense")
    reason = f"It computes on the CPU, because torch {torch.__version__} finds no nonsense here."
    for _ in range(3):
        bench.use()
        assert (bench.view().device, bench.view().note) == ("cpu", reason)
        assert bench.slot.unload().result == "done"
    assert [event.reason for event in bench.events if event.old is State.LOADING] == [reason, None, None]
    assert bench.slot.close(5.0)

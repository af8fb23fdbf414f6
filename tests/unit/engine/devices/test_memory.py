"""What is asked of torch about a device, and what is not: asking must start no context and import nothing."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from engine.devices import Allocated, DeviceMemory, allocated, context, limit, memory
from engine.devices.driver import free_without_context


@dataclass
class FakeCuda:
    """Stands in for torch.cuda: two GPUs, of which those in `started` have a context; asking others fails the test."""

    initialized: bool = True
    started: set[int] = field(default_factory=lambda: {1})
    integrated: bool = False
    properties: dict[str, Any] = field(default_factory=lambda: {"uuid": "0fa1"})
    current: int = 0
    """The device that calls without one are made on."""

    def is_initialized(self) -> bool:
        return self.initialized

    def device_count(self) -> int:
        return 2

    def get_device_properties(self, number: int) -> Any:
        assert self.initialized
        facts = {"name": f"GPU {number}", "total_memory": 1000, "is_integrated": int(self.integrated)}
        return SimpleNamespace(**facts, **self.properties)

    def mem_get_info(self, number: int) -> tuple[int, int]:
        assert number in self.started, "this would start a context"
        return 600, 990

    def memory_reserved(self, number: int) -> int:
        return 250

    def device_memory_used(self, number: int) -> int:
        """As torch asks NVML, which numbers GPUs in its own way."""
        return 300

    def set_per_process_memory_fraction(self, share: float, number: int) -> None:
        assert number in self.started, "this would start a context"
        self.current = number

    @contextlib.contextmanager
    def device(self, name: str) -> Iterator[None]:
        before, self.current = self.current, int(name.partition(":")[2])
        yield
        self.current = before


class FakeNvml:
    """Stands in for pynvml: bytes in use by the GPUs' UUIDs, and which (process, bytes) compute on each of them.

    Who asks without starting it fails; `started` tells who leaves it so.
    """

    class NVMLError(Exception):
        pass

    class NVMLLibraryMismatchError(Exception):
        pass

    def __init__(
        self, used: dict[str, int], refusal: Exception | None = None, *computing: tuple[int, int | None]
    ) -> None:
        self.used = used
        self.computing = computing
        self.refusal = refusal
        self.started = 0
        self.nvmlInit, self.nvmlShutdown = self._init, self._shut_down
        self.nvmlDeviceGetHandleByUUID, self.nvmlDeviceGetMemoryInfo = self._handle, self._memory
        self.nvmlDeviceGetComputeRunningProcesses = self._computing
        self.nvmlDeviceGetGraphicsRunningProcesses = self._drawing

    def _init(self) -> None:
        if self.refusal:
            raise self.refusal
        self.started += 1

    def _shut_down(self) -> None:
        self.started -= 1

    def _handle(self, uuid: str) -> str:
        assert self.started
        if uuid not in self.used:
            raise self.NVMLError("Not Found")
        return uuid

    def _memory(self, handle: str) -> Any:
        assert self.started
        return SimpleNamespace(used=self.used[handle])

    def _computing(self, handle: str) -> list[Any]:
        assert self.started
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.computing]

    def _drawing(self, handle: str) -> list[Any]:
        raise self.NVMLError("Not Supported")


class FakeMps:
    """Stands in for torch.mps, which does not tell whether it was used."""

    def __init__(self, there: bool = True) -> None:
        self.is_available = lambda: there
        self.device_count = lambda: int(there)
        self.driver_allocated_memory = lambda: 70


def fake_torch(monkeypatch: pytest.MonkeyPatch, **modules: Any) -> None:
    cuda = modules.get("cuda")
    inside = SimpleNamespace(
        _cuda_hasPrimaryContext=lambda number: number in cuda.started,
        _get_privateuse1_backend_name=lambda: "privateuseone",
    )
    found = SimpleNamespace(_C=inside, **modules)
    found.get_device_module = lambda kind: getattr(found, kind)
    monkeypatch.setitem(sys.modules, "torch", found)


def test_only_a_device_with_a_context_is_asked_through_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, cuda=FakeCuda())
    assert memory("cuda:1") == DeviceMemory("cuda:1", free=600, total=990, ours=250)
    assert memory("cuda:0") == DeviceMemory("cuda:0", free=700, total=1000, ours=0)
    assert limit("cuda:0", None), "there is none to lift"


def test_a_gpu_without_a_context_is_asked_for_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, cuda=FakeCuda())
    nvml = FakeNvml({"GPU-0fa1": 20, "GPU-0fa2": 900})
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert memory("cuda:0") == DeviceMemory("cuda:0", free=980, total=1000, ours=0)
    assert (free_without_context(FakeCuda(), 0), nvml.started) == (980, 0)


@pytest.mark.parametrize(
    "nvml",
    [
        FakeNvml({"GPU-0fa2": 900}),
        FakeNvml({"GPU-0fa1": 20}, FakeNvml.NVMLError("Driver Not Loaded")),
        FakeNvml({"GPU-0fa1": 20}, FakeNvml.NVMLLibraryMismatchError()),
        SimpleNamespace(started=0, nvmlInit=lambda: None),
        SimpleNamespace(
            started=0,
            NVMLError=FakeNvml.NVMLError,
            NVMLLibraryMismatchError=FakeNvml.NVMLLibraryMismatchError,
            nvmlInit=lambda: None,
        ),
        None,
    ],
    ids=["another GPU", "no driver", "another driver", "another library", "an older binding", "not installed"],
)
def test_a_gpu_that_nvml_does_not_know_is_asked_for_in_torchs_way(monkeypatch: pytest.MonkeyPatch, nvml: Any) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert free_without_context(FakeCuda(), 0) == 700
    assert nvml is None or nvml.started == 0
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml({"GPU-None": 20}))
    assert free_without_context(FakeCuda(properties={}), 0) == 700


def test_a_limit_leaves_the_threads_own_device_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()
    fake_torch(monkeypatch, cuda=cuda)
    assert limit("cuda:1", 10)
    assert cuda.current == 0


def test_what_is_ours_and_free_is_not_others(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, cuda=FakeCuda())
    found = memory("cuda:1")
    assert found is not None
    assert found.others == 140
    assert DeviceMemory("cuda:0", 600, 990, None).others is None
    assert DeviceMemory("cuda:0", 900, 990, 250).others == 0


US = os.getpid()


def test_our_context_is_what_the_driver_counts_for_us_beyond_torchs_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, cuda=FakeCuda())
    nvml = FakeNvml({"GPU-0fa1": 390}, None, (1, 70), (US, 320))
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert (context("cuda:1"), nvml.started) == (70, 0)


@pytest.mark.parametrize(
    "nvml",
    [
        None,
        FakeNvml({"GPU-0fa1": 390}, FakeNvml.NVMLError("Driver Not Loaded"), (US, 320)),
        FakeNvml({"GPU-0fa2": 390}, None, (US, 320)),
        FakeNvml({"GPU-0fa1": 390}, None, (US, None)),
        FakeNvml({"GPU-0fa1": 390}, None, (1, 320)),
        FakeNvml({"GPU-0fa1": 390}, None, (US, 249)),
    ],
    ids=["not installed", "no driver", "another GPU", "Windows' driver model", "a container", "a namesake"],
)
def test_our_context_is_unknown_where_the_driver_does_not_say(monkeypatch: pytest.MonkeyPatch, nvml: Any) -> None:
    fake_torch(monkeypatch, cuda=FakeCuda())
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert context("cuda:1") is None


def test_our_context_in_shared_memory_or_on_a_gpu_without_a_uuid_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml({"GPU-0fa1": 390, "GPU-None": 390}, None, (US, 320))
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    for cuda in (FakeCuda(integrated=True), FakeCuda(properties={})):
        fake_torch(monkeypatch, cuda=cuda)
        assert context("cuda:1") is None
    fake_torch(monkeypatch, mps=FakeMps())
    assert context("mps") is None


def test_a_lost_gpu_does_not_say_what_our_context_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(number: int) -> Any:
        raise RuntimeError("CUDA error: device not ready")

    cuda = FakeCuda()
    fake_torch(monkeypatch, cuda=cuda)
    monkeypatch.setattr(cuda, "get_device_properties", lost)
    assert context("cuda:1") is None


def test_where_we_have_no_context_it_takes_nothing_and_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, cuda=FakeCuda())
    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace())
    assert (context("cuda:0"), context("cpu")) == (0, 0)


def test_before_torch_has_used_the_gpus_nothing_is_asked_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, cuda=FakeCuda(initialized=False))
    assert memory("cuda:1") == DeviceMemory("cuda:1", None, None, 0)
    assert allocated() == ()
    assert limit("cuda:1", None)


def test_a_gpu_is_told_from_others_by_what_the_driver_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    held = DeviceMemory("cuda:1", 600, 990, 250)
    fake_torch(monkeypatch, cuda=FakeCuda())
    assert allocated() == (Allocated(held, "GPU 1", "0fa1", None),)
    place = {"pci_domain_id": 0, "pci_bus_id": 101, "pci_device_id": 2}
    fake_torch(monkeypatch, cuda=FakeCuda(properties=place))
    assert allocated() == (Allocated(held, "GPU 1", None, (0, 101, 2)),)


def test_an_integrated_gpu_shares_the_systems_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, cuda=FakeCuda(integrated=True))
    found = memory("cuda:1")
    assert found is not None
    assert (found.shared, found.ours) == (True, 250)
    assert found.total is not None
    assert found.total > 1000


def test_mps_shares_the_systems_memory_and_has_a_count_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torch(monkeypatch, mps=FakeMps())
    [found] = allocated()
    assert (found.name, found.memory.device, found.memory.ours, found.memory.shared) == ("Apple GPU", "mps", 70, True)
    assert not limit("mps", 1)
    fake_torch(monkeypatch, mps=FakeMps(there=False))
    assert allocated() == ()


@pytest.mark.parametrize("half", [SimpleNamespace(), SimpleNamespace(cuda=SimpleNamespace())])
def test_a_torch_that_is_still_being_imported_has_used_nothing(monkeypatch: pytest.MonkeyPatch, half: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch", half)
    assert allocated() == ()
    assert memory("cuda:0") == DeviceMemory("cuda:0", None, None, 0)


def test_looking_and_a_cpu_import_no_torch() -> None:
    code = """
import sys
from engine.devices import allocated, limit, memory, out_of_memory_on
limit("cpu", 1), limit("cuda:0", None)
with out_of_memory_on("cpu"), out_of_memory_on("cuda:0"):
    print(memory("cpu"), memory("cuda:0").ours, allocated(), "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "None 0 () False"

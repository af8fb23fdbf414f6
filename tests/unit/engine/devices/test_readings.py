"""Readings: what is known is in bytes, what is unknown is None and never 0."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from engine_fakes import FakeClock

from engine.devices import Allocated, DeviceMemory
from engine.devices.readings import DeviceReading, SystemReader

US = os.getpid()
OTHER = 1
NOT_AVAILABLE = 2**64 - 1
LIBRARY = ("nvmlInit", "nvmlShutdown", "nvmlDeviceGetCount")
PER_GPU = (
    "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetName",
    "nvmlDeviceGetUUID", "nvmlDeviceGetPciInfo", "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
)  # fmt: skip


@dataclass
class FakeGpu:
    """One GPU of 8000 bytes, of which 2000 are used; calls that are named in `silent` raise."""

    silent: tuple[str, ...] = ()
    computing: list[tuple[int, int | None]] = field(default_factory=lambda: [(US, 500), (OTHER, 1200)])
    drawing: list[tuple[int, int | None]] = field(default_factory=list)
    uuid: str = "GPU-0FA1"
    bus: int = 1


class FakeNvml:
    """Stands in for the module `pynvml`; calls in `silent` raise NVMLError, those in `broken` that they are too new."""

    class NVMLError(Exception):
        """What NVML answers when it does not answer."""

    class NVMLLibraryMismatchError(Exception):
        """What pynvml raises where the driver is older than a call."""

    def __init__(self, *gpus: FakeGpu, silent: tuple[str, ...] = (), broken: tuple[str, ...] = ()) -> None:
        self.gpus = gpus or (FakeGpu(),)
        self.silent, self.broken = silent, broken
        self.calls: list[str] = []
        for name in (*LIBRARY, *PER_GPU):
            setattr(self, name, self._call(name))

    def _call(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            gpu = self.gpus[arguments[0]] if arguments else None
            if name in self.silent or (gpu is not None and name in gpu.silent):
                raise self.NVMLError(name)
            if name in self.broken:
                raise self.NVMLLibraryMismatchError(name)
            return self._answer(name, gpu, *arguments)

        return call

    def _answer(self, name: str, gpu: FakeGpu | None, *arguments: Any) -> Any:
        if gpu is None:
            return len(self.gpus) if name == "nvmlDeviceGetCount" else None
        listed = {"nvmlDeviceGetComputeRunningProcesses": gpu.computing}
        listed["nvmlDeviceGetGraphicsRunningProcesses"] = gpu.drawing
        if name in listed:
            return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in listed[name]]
        return {
            "nvmlDeviceGetHandleByIndex": arguments[0],
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=8000, used=2000, free=6000),
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=25, memory=1),
            "nvmlDeviceGetName": b"GeForce",
            "nvmlDeviceGetUUID": gpu.uuid,
            "nvmlDeviceGetPciInfo": SimpleNamespace(domain=0, bus=gpu.bus, device=0),
        }[name]


def held(ours: int | None = 300, device: str = "cuda:0", uuid: str | None = "0fa1", **more: Any) -> Allocated:
    """A device on which torch holds `ours` bytes."""
    shared = more.pop("shared", False)
    return Allocated(DeviceMemory(device, 5900, 7900, ours, shared), f"torch's {device}", uuid, **more)


def reader(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml | None, *allocated: Allocated) -> SystemReader:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return SystemReader(FakeClock(), lambda: allocated)


def devices(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml | None, *allocated: Allocated) -> tuple[DeviceReading, ...]:
    return reader(monkeypatch, nvml, *allocated).read().devices


def figures(reading: DeviceReading) -> tuple[int | None, ...]:
    """Ours by the driver, ours by torch, the context, others."""
    return (reading.process_vram, reading.allocated_vram, reading.context_bytes, reading.others_vram)


# The process and the system


def test_the_process_and_the_system_are_read_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = reader(monkeypatch, None).read()
    assert 1_000_000 < reading.rss < reading.ram_total
    assert 0 < reading.ram_available <= reading.ram_total
    assert (reading.at, reading.private, reading.swap, reading.devices) == (1000.0, None, None, ())


def test_a_detailed_reading_adds_the_private_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = reader(monkeypatch, None).read(detailed=True)
    assert reading.private is not None
    assert 1_000_000 < reading.private <= reading.rss * 1.5


def test_a_reading_imports_no_torch() -> None:
    code = (
        "import sys; from engine.devices import readings; readings.SystemReader().read(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


# NVML itself


def test_building_and_closing_a_reader_ask_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    reader(monkeypatch, nvml).close()
    assert nvml.calls == []


def test_a_gpu_is_read_through_nvml_and_shut_down_once(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    gpus = reader(monkeypatch, nvml)
    gpus.read()
    [device] = gpus.read().devices
    assert (device.index, device.name, device.utilisation) == (0, "GeForce", 0.25)
    assert (device.vram_total, device.vram_used, device.vram_free, device.process_vram) == (8000, 2000, 6000, 500)
    gpus.close()
    gpus.close()
    assert (nvml.calls.count("nvmlInit"), nvml.calls.count("nvmlShutdown")) == (1, 1)


@pytest.mark.parametrize(
    ("silent", "fields"),
    [
        ("nvmlDeviceGetMemoryInfo", ("vram_total", "vram_used", "vram_free", "others_vram")),
        ("nvmlDeviceGetUtilizationRates", ("utilisation",)),
        ("nvmlDeviceGetComputeRunningProcesses", ("process_vram", "context_bytes", "others_vram")),
    ],
)
def test_what_the_driver_does_not_say_is_none(
    monkeypatch: pytest.MonkeyPatch, silent: str, fields: tuple[str, ...]
) -> None:
    for nvml in (FakeNvml(silent=(silent,)), FakeNvml(broken=(silent,))):
        [device] = devices(monkeypatch, nvml, held())
        assert [getattr(device, field) for field in fields] == [None] * len(fields)
        assert device.allocated_vram == 300


@pytest.mark.parametrize("silent", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"])
def test_a_driver_that_does_not_answer_means_no_gpus(monkeypatch: pytest.MonkeyPatch, silent: str) -> None:
    gpus = reader(monkeypatch, FakeNvml(silent=(silent,)))
    assert gpus.read().devices == ()
    gpus.close()


class BrokenNvml:
    """Stands in for a `pynvml` that is something else: every name of it raises, or only the start."""

    def __init__(self, *, start_only: bool) -> None:
        self.asked = 0
        if start_only:
            self.NVMLError = FakeNvml.NVMLError

    def __getattr__(self, name: str) -> Any:
        self.asked += 1
        raise AttributeError(f"module 'pynvml' has no attribute {name!r}")


@pytest.mark.parametrize("start_only", [True, False])
def test_a_broken_binding_means_no_gpus_and_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, start_only: bool
) -> None:
    broken = BrokenNvml(start_only=start_only)
    monkeypatch.setitem(sys.modules, "pynvml", broken)
    gpus = SystemReader(FakeClock(), lambda: (held(),))
    for _ in range(2):
        [device] = gpus.read().devices
        assert (device.device, device.allocated_vram) == ("cuda:0", 300)
    gpus.close()
    assert broken.asked
    assert [record.message for record in caplog.records] == ["NVML does not start, so NVIDIA GPUs are not read"]


def test_a_binding_that_cannot_be_imported_means_no_gpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pynvml.py").write_text("raise RuntimeError('written for another Python')")
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert SystemReader(FakeClock(), tuple).read().devices == ()
    assert "written for another Python" in caplog.text


def test_a_driver_that_refuses_all_but_its_gpus_number_gives_unknowns(monkeypatch: pytest.MonkeyPatch) -> None:
    [device] = devices(monkeypatch, FakeNvml(FakeGpu(silent=PER_GPU[1:])))
    assert device == DeviceReading(0, "GPU 0", *[None] * 6, allocated_vram=0)


def test_a_binding_that_is_older_than_a_call_gives_an_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    for name in ("nvmlDeviceGetUtilizationRates", "nvmlShutdown"):
        delattr(nvml, name)
    gpus = reader(monkeypatch, nvml)
    [device] = gpus.read().devices
    assert (device.utilisation, device.vram_used) == (None, 2000)
    gpus.close()


def test_one_of_two_gpus_that_falls_off_the_bus_leaves_the_other_its_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    lost, well = FakeGpu(silent=PER_GPU, uuid="GPU-dead", bus=9), FakeGpu()
    [device] = devices(monkeypatch, FakeNvml(lost, well), held())
    assert (device.index, figures(device)) == (1, (500, 300, 200, 1500))


# Ours, the context and others


def test_what_the_driver_counts_for_us_is_split_into_torchs_bytes_and_the_context(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [device] = devices(monkeypatch, FakeNvml(), held(300))
    assert figures(device) == (500, 300, 200, 1500)
    assert (device.device, device.shares_ram) == ("cuda:0", False)


def test_a_process_without_a_context_that_is_not_listed_uses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    [device] = devices(monkeypatch, FakeNvml(FakeGpu(computing=[(OTHER, 1200)])))
    assert figures(device) == (0, 0, 0, 2000)


def test_a_process_with_a_context_that_is_not_listed_is_unknown_as_in_a_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for computing in ([(OTHER, 1200)], []):
        [device] = devices(monkeypatch, FakeNvml(FakeGpu(computing=computing)), held(300))
        assert figures(device) == (None, 300, None, None)


def test_a_namesake_that_uses_less_than_torch_allocated_is_not_us(monkeypatch: pytest.MonkeyPatch) -> None:
    [device] = devices(monkeypatch, FakeNvml(FakeGpu(computing=[(US, 299)])), held(300))
    assert figures(device) == (None, 300, None, None)


@pytest.mark.parametrize("unknown", [None, NOT_AVAILABLE])
def test_windows_driver_model_lists_us_without_a_figure(monkeypatch: pytest.MonkeyPatch, unknown: int | None) -> None:
    gpu = FakeGpu(computing=[(US, unknown), (OTHER, unknown)])
    for allocated in ([], [held(300)]):
        [device] = devices(monkeypatch, FakeNvml(gpu), *allocated)
        assert (device.process_vram, device.context_bytes, device.others_vram) == (None, None, None)
        assert device.allocated_vram == (300 if allocated else 0)


def test_a_process_that_computes_and_draws_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    [device] = devices(monkeypatch, FakeNvml(FakeGpu(drawing=[(US, 500), (OTHER, 9)])), held(300))
    assert device.process_vram == 500


def test_a_process_that_only_draws_is_found_even_where_the_computing_ones_are_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for silent in ((), ("nvmlDeviceGetComputeRunningProcesses",)):
        [device] = devices(monkeypatch, FakeNvml(FakeGpu(silent=silent, computing=[], drawing=[(US, 40)])))
        assert device.process_vram == 40


def test_parts_of_a_divided_gpu_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    [device] = devices(monkeypatch, FakeNvml(FakeGpu(computing=[(US, 300), (US, 200)])))
    assert device.process_vram == 500


# Which device is which


@pytest.mark.parametrize("pci", [None, (0, 1, 0)])
def test_torchs_first_device_is_found_as_the_drivers_second_gpu(
    monkeypatch: pytest.MonkeyPatch, pci: tuple[int, int, int] | None
) -> None:
    uuid = "0fa1" if pci is None else None
    unused, used = FakeGpu(computing=[], uuid="GPU-beef", bus=7), FakeGpu()
    first, second = devices(monkeypatch, FakeNvml(unused, used), held(300, uuid=uuid, pci=pci))
    assert (first.device, figures(first)) == (None, (0, 0, 0, 2000))
    assert (second.device, figures(second)) == ("cuda:0", (500, 300, 200, 1500))


def test_a_cuda_device_that_is_none_of_the_drivers_gpus_makes_all_of_them_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = FakeGpu(computing=[(OTHER, 1200)])
    seen, stray = devices(monkeypatch, FakeNvml(gpu), held(300, uuid=None))
    assert figures(seen) == (None, None, None, None)
    assert (stray.index, stray.name, figures(stray)) == (1, "torch's cuda:0", (None, 300, None, None))


def test_a_device_that_nvml_does_not_know_is_read_through_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for nvml in (None, FakeNvml(silent=("nvmlInit",))):
        first, second = devices(monkeypatch, nvml, held(300), held(None, "xpu:0"))
        assert (first.index, first.device, figures(first)) == (0, "cuda:0", (None, 300, None, None))
        assert (first.vram_total, first.vram_used, first.vram_free) == (7900, 2000, 5900)
        assert (second.index, second.device, second.allocated_vram) == (1, "xpu:0", None)


def test_a_gpu_whose_memory_is_the_systems_has_no_vram_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    [device] = devices(monkeypatch, None, held(300, "mps", None, shared=True))
    assert (device.vram_total, device.vram_used, device.vram_free) == (None, None, None)
    assert (device.shares_ram, figures(device)) == (True, (None, 300, None, None))
    silent = ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetComputeRunningProcesses")
    [device] = devices(monkeypatch, FakeNvml(silent=silent), held(300, shared=True))
    assert (device.vram_total, device.shares_ram, figures(device)) == (None, True, (None, 300, None, None))

"""Readings: what is known is in bytes, what is unknown is None and never 0."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from engine_fakes import FakeClock

from engine.memory import SystemReader

NVML_CALLS = (
    "nvmlInit", "nvmlShutdown", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetName", "nvmlDeviceGetComputeRunningProcesses",
)  # fmt: skip


class FakeNvml:
    """Stands in for the module `pynvml`, with one GPU; what is named in `silent` raises."""

    class NVMLError(Exception):
        pass

    def __init__(self, *silent: str) -> None:
        self.calls: list[str] = []
        self.used: list[tuple[int, int | None]] = [(os.getpid(), 500), (1, 9999)]
        answers: dict[str, Any] = {
            "nvmlDeviceGetCount": lambda: 1,
            "nvmlDeviceGetHandleByIndex": lambda index: f"handle {index}",
            "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=8000, used=2000, free=6000),
            "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=25, memory=1),
            "nvmlDeviceGetName": lambda handle: b"GeForce",
            "nvmlDeviceGetComputeRunningProcesses": lambda handle: [
                SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.used
            ],
        }
        for name in NVML_CALLS:
            setattr(self, name, self._answering(name, None if name in silent else answers.get(name, lambda: None)))

    def _answering(self, name: str, answer: Any) -> Any:
        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if answer is None:
                raise self.NVMLError(name)
            return answer(*arguments)

        return call


def reader(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml | None) -> SystemReader:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return SystemReader(FakeClock())


def test_the_process_and_the_system_are_read_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = reader(monkeypatch, None).read()
    assert 1_000_000 < reading.rss < reading.ram_total
    assert 0 < reading.ram_available <= reading.ram_total
    assert (reading.at, reading.private, reading.swap, reading.devices) == (1000.0, None, None, ())


def test_a_detailed_reading_adds_the_private_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = reader(monkeypatch, None).read(detailed=True)
    assert reading.private is not None
    assert 1_000_000 < reading.private <= reading.rss * 1.5


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


def test_a_process_that_uses_no_gpu_reads_zero_and_one_that_is_not_told_reads_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nvml = FakeNvml()
    gpus = reader(monkeypatch, nvml)
    nvml.used = []
    assert gpus.read().devices[0].process_vram == 0
    nvml.used = [(os.getpid(), None)]
    assert gpus.read().devices[0].process_vram is None


@pytest.mark.parametrize(
    ("silent", "fields"),
    [
        ("nvmlDeviceGetMemoryInfo", ("vram_total", "vram_used", "vram_free")),
        ("nvmlDeviceGetUtilizationRates", ("utilisation",)),
        ("nvmlDeviceGetComputeRunningProcesses", ("process_vram",)),
    ],
)
def test_what_the_driver_does_not_say_is_none(
    monkeypatch: pytest.MonkeyPatch, silent: str, fields: tuple[str, ...]
) -> None:
    [device] = reader(monkeypatch, FakeNvml(silent)).read().devices
    assert [getattr(device, field) for field in fields] == [None] * len(fields)


@pytest.mark.parametrize("silent", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"])
def test_a_driver_that_does_not_answer_means_no_gpus(monkeypatch: pytest.MonkeyPatch, silent: str) -> None:
    gpus = reader(monkeypatch, FakeNvml(silent))
    assert gpus.read().devices == ()
    gpus.close()


def test_a_gpu_without_a_name_is_called_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reader(monkeypatch, FakeNvml("nvmlDeviceGetName")).read().devices[0].name == "GPU 0"

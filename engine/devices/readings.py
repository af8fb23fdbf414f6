"""Readings of memory in use: by the process, in the system and on each GPU."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine import devices
from engine.devices import Allocated
from engine.devices.nvml import Gpu, Nvml


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """One GPU at one instant; sizes in bytes, None if unknown."""

    index: int
    """NVML's number of the GPU; devices that NVML does not see are numbered after those."""
    name: str
    vram_total: int | None
    vram_used: int | None
    """Bytes in use by all programs and the driver."""
    vram_free: int | None
    process_vram: int | None
    """Bytes that the driver counts for this process: torch's allocations and the context."""
    context_bytes: int | None
    """`process_vram` without `allocated_vram`: the fixed cost of using the GPU, freed when the process ends."""
    utilisation: float | None
    """Share of the last sample period in which a kernel ran, 0 to 1."""
    allocated_vram: int | None = None
    """Bytes that torch's allocator holds there, in use and cached; 0 before its first use."""
    others_vram: int | None = None
    """`vram_used` without `process_vram`: other programs and the driver."""
    device: str | None = None
    """torch's name of the device, known once this process uses it."""
    shares_ram: bool | None = None
    """Whether its memory is the system's, so that it has no VRAM; known once this process uses it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Memory at one instant, in bytes; `at` is on the monotonic clock."""

    at: float
    rss: int
    ram_total: int
    ram_available: int
    private: int | None = None
    swap: int | None = None
    devices: tuple[DeviceReading, ...] = ()


class Reader(Protocol):
    """An object that takes readings; it must not load or wake an encoder, or import a model library."""

    def read(self, *, detailed: bool = False) -> Reading:
        """Return a reading; `detailed` adds the slow figures (private bytes and swap)."""
        ...

    def close(self) -> None:
        """Release the reader's resources."""
        ...


class SystemReader:
    """Reads the process from psutil, NVIDIA GPUs from NVML and torch's allocator if torch is imported.

    psutil and NVML are imported at the first reading, torch never.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        allocated: Callable[[], tuple[Allocated, ...]] = devices.allocated,
    ) -> None:
        self._clock = clock
        self._allocated = allocated
        self._process: Any = None
        self._gpus: Nvml | None = None
        self._lock = threading.Lock()

    def read(self, *, detailed: bool = False) -> Reading:
        """Return a reading; the first one starts NVML if it is installed."""
        import psutil

        with self._lock:
            if self._process is None:
                self._gpus = Nvml.start()
                self._process = psutil.Process()
            gpus = self._gpus
        system = psutil.virtual_memory()
        private = swap = None
        if detailed:
            full = self._process.memory_full_info()
            private, swap = full.uss, getattr(full, "swap", None)
        return Reading(
            at=self._clock(),
            rss=self._process.memory_info().rss,
            ram_total=system.total,
            ram_available=system.available,
            private=private,
            swap=swap,
            devices=_devices(gpus.read() if gpus else (), self._allocated()),
        )

    def close(self) -> None:
        """Shut NVML down."""
        with self._lock:
            gpus, self._gpus = self._gpus, None
        if gpus is not None:
            gpus.stop()


def _devices(gpus: Sequence[Gpu], held: Sequence[Allocated]) -> tuple[DeviceReading, ...]:
    """Return one reading for each GPU that NVML sees and each device that it does not, joined by identity."""
    ours = [(gpu, next((device for device in held if _same(gpu, device)), None)) for gpu in gpus]
    matched = [device for _, device in ours if device is not None]
    strays = [device for device in held if device not in matched]
    # A stray CUDA device could be any of the GPUs, so no GPU is known to hold nothing of ours.
    stray = any(device.memory.device.startswith("cuda") for device in strays)
    first = max((gpu.index + 1 for gpu in gpus), default=0)
    return (
        *(_of_gpu(gpu, device, stray) for gpu, device in ours),
        *(_of_stray(index, device) for index, device in enumerate(strays, first)),
    )


def _same(gpu: Gpu, device: Allocated) -> bool:
    """Whether torch's device is this GPU; the two may be numbered differently."""
    if gpu.uuid is not None and gpu.uuid == device.uuid:
        return True
    return gpu.pci is not None and gpu.pci == device.pci


def _of_gpu(gpu: Gpu, device: Allocated | None, stray: bool) -> DeviceReading:
    absent = device is None and not stray
    allocated = device.memory.ours if device is not None else 0 if absent else None
    # NVML lists a process with a context under another number in a container, so not listed means unknown.
    process = gpu.process if gpu.lists_us else 0 if gpu.lists_us is False and absent else None
    if process is not None and allocated is not None and process < allocated:
        process = None  # of a process outside the container with our number, or from before an allocation
    return DeviceReading(
        index=gpu.index,
        name=gpu.name,
        vram_total=gpu.total,
        vram_used=gpu.used,
        vram_free=gpu.free,
        process_vram=process,
        allocated_vram=allocated,
        context_bytes=None if process is None or allocated is None else process - allocated,
        others_vram=None if process is None or gpu.used is None else max(0, gpu.used - process),
        utilisation=gpu.utilisation,
        device=device.memory.device if device is not None else None,
        shares_ram=device.memory.shared if device is not None else None,
    )


def _of_stray(index: int, device: Allocated) -> DeviceReading:
    known = device.memory
    total, free = (None, None) if known.shared else (known.total, known.free)
    return DeviceReading(
        index=index,
        name=device.name,
        vram_total=total,
        vram_used=None if total is None or free is None else total - free,
        vram_free=free,
        process_vram=None,
        allocated_vram=known.ours,
        context_bytes=None,
        others_vram=None,
        utilisation=None,
        device=known.device,
        shares_ram=known.shared,
    )

"""How much memory is in use right now: the process, the system and each GPU."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """One GPU at one instant; bytes, and None where the driver does not say."""

    index: int
    name: str
    vram_total: int | None
    vram_used: int | None
    vram_free: int | None
    process_vram: int | None
    context_bytes: int | None
    utilisation: float | None
    """Share of the last sample period in which a kernel ran, 0 to 1."""


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
    """Anything that can take a reading; it must not load, wake or import a model library."""

    def read(self, *, detailed: bool = False) -> Reading:
        """Return a reading; `detailed` adds what is slow to ask for (private bytes and swap)."""
        ...

    def close(self) -> None:
        """Give back what the reader holds."""
        ...


class SystemReader:
    """Reads the process through psutil and NVIDIA GPUs through NVML, both imported at the first reading."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._process: Any = None
        self._gpus: _Nvml | None = None
        self._lock = threading.Lock()

    def read(self, *, detailed: bool = False) -> Reading:
        """Return a reading; the first one starts NVML where there is one."""
        import psutil

        with self._lock:
            if self._process is None:
                self._gpus = _Nvml.start()
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
            devices=gpus.read() if gpus else (),
        )

    def close(self) -> None:
        """Shut NVML down."""
        with self._lock:
            gpus, self._gpus = self._gpus, None
        if gpus is not None:
            gpus.stop()


class _Nvml:
    """NVML for as long as it is started; every answer it refuses becomes None."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    @classmethod
    def start(cls) -> _Nvml | None:
        """Start NVML, or return None where there is no NVIDIA driver."""
        try:
            import pynvml
        except ImportError:
            return None
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            _log.debug("no NVIDIA GPU to read: %s", error)
            return None
        return cls(pynvml)

    def stop(self) -> None:
        self._ask(self._nvml.nvmlShutdown)

    def read(self) -> tuple[DeviceReading, ...]:
        count = self._ask(self._nvml.nvmlDeviceGetCount) or 0
        handles = ((index, self._ask(self._nvml.nvmlDeviceGetHandleByIndex, index)) for index in range(count))
        return tuple(self._device(index, handle) for index, handle in handles if handle is not None)

    def _device(self, index: int, handle: Any) -> DeviceReading:
        memory = self._ask(self._nvml.nvmlDeviceGetMemoryInfo, handle)
        rates = self._ask(self._nvml.nvmlDeviceGetUtilizationRates, handle)
        name = self._ask(self._nvml.nvmlDeviceGetName, handle)
        return DeviceReading(
            index=index,
            name=name.decode(errors="replace") if isinstance(name, bytes) else (name or f"GPU {index}"),
            vram_total=memory.total if memory else None,
            vram_used=memory.used if memory else None,
            vram_free=memory.free if memory else None,
            process_vram=self._process_vram(handle),
            context_bytes=None,
            utilisation=rates.gpu / 100 if rates else None,
        )

    def _process_vram(self, handle: Any) -> int | None:
        processes = self._ask(self._nvml.nvmlDeviceGetComputeRunningProcesses, handle)
        if processes is None:
            return None
        mine = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
        return None if any(used is None for used in mine) else sum(mine)

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return question(*arguments)
        except self._nvml.NVMLError:
            return None

"""Figures of one GPU: by torch's allocator, by its profiler and by NVML."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil
import torch
from card import Judge

MIB, GIB = 2**20, 2**30


class Gpu:
    """One GPU by torch's name; sizes are bytes."""

    def __init__(self, device: str) -> None:
        """Ask NVML for `device`."""
        self.device = device
        self.judge = Judge(device)
        self._module = torch.get_device_module(device)

    def allocated(self) -> int:
        """Return the bytes of living tensors, after all work on the GPU is done."""
        self._module.synchronize(self.device)
        return int(self._module.memory_allocated(self.device))

    def free(self) -> int:
        """Return the bytes that any program could still take."""
        return int(self._module.mem_get_info(self.device)[0])

    def empty_cache(self) -> None:
        """Give the memory that torch keeps for later back to the driver."""
        self._module.empty_cache()

    def lift_limit(self) -> None:
        """Let this process take all of the GPU again: the limit that a budget sets outlives its engine."""
        if hasattr(self._module, "set_per_process_memory_fraction"):
            self._module.set_per_process_memory_fraction(1.0, self.device)

    def most_reserved(self) -> int:
        """Return the most that this process has taken from the driver for tensors since `forget_peak`."""
        return int(self._module.max_memory_reserved(self.device))

    def forget_peak(self) -> None:
        """Count the peak from now."""
        self._module.synchronize(self.device)
        self._module.reset_peak_memory_stats(self.device)

    def of_process(self, settled: Callable[[int], bool] = lambda _: True) -> int | None:
        """Return NVML's figure of this process, as soon as it is `settled` or after two seconds."""
        ends = time.monotonic() + 2.0
        while True:
            held = self.judge.of_process()
            if held is None or settled(held) or time.monotonic() > ends:
                return held
            time.sleep(0.05)

    def fill(self, leave: int) -> list[torch.Tensor]:
        """Return tensors of this process that take all of the free memory but `leave` bytes, 16 MiB more at most."""
        self.empty_cache()
        tensors = []
        piece = GIB
        while piece >= 16 * MIB:  # torch takes more than it is asked for where that is less than 10 MiB
            while self.free() - leave >= piece:
                tensors.append(torch.empty(piece, dtype=torch.uint8, device=self.device))
            piece //= 2
        return tensors

    def copies(self, call: Callable[[], Any]) -> list[str]:
        """Return the profiler's names of the copies between host and device that ran during `call`."""
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as seen:
            call()
            self._module.synchronize(self.device)
        names = [event.name for event in seen.events()]
        return [name for name in names if name.startswith("Memcpy") and ("HtoD" in name or "DtoH" in name)]


def rss() -> int:
    """Return this process's resident bytes."""
    return int(psutil.Process().memory_info().rss)


def handles() -> int:
    """Return how many files (on Windows: handles) this process has open."""
    process = psutil.Process()
    return int(process.num_fds() if hasattr(process, "num_fds") else process.num_handles())

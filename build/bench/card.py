"""The real GPU that a benchmark or a test runs on: whether there is one, and how full it is as NVML says.

Run as a script it prints what is there: python build/bench/card.py
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from typing import Any


def missing() -> str | None:
    """Return why there is no CUDA GPU to use, None when there is one; makes no context on it."""
    try:
        import torch
    except ImportError:
        return "torch is not installed"

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return None
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA; `--gpu cuda` takes the one with it"
    reasons = [str(warning.message).splitlines()[0] for warning in said] or ["no driver or no NVIDIA GPU"]
    return f"torch {torch.__version__} finds no CUDA GPU: {reasons[0]}"


def pick() -> str:
    """Return torch's name of the GPU with most free memory, as the engine chooses it."""
    from engine.devices import choose

    choice = choose("cuda")
    if choice.device == "cpu":
        raise SystemExit(f"no GPU that works: {choice.reason}")
    return choice.device


def describe(device: str) -> str:
    """Return the GPU's name, memory and the versions that a figure depends on, in one line."""
    import torch

    properties = torch.cuda.get_device_properties(device)
    gib = properties.total_memory / 2**30
    return f"{device}: {properties.name}, {gib:.1f} GiB, torch {torch.__version__}, CUDA {torch.version.cuda}"


def module(device: str) -> Any:
    """Return the part of torch that speaks for the device, such as torch.cuda."""
    import torch

    return torch.get_device_module(device)


def timed(device: str, call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the milliseconds until the GPU has done what `call` gave it, and the result."""
    synchronize = module(device).synchronize
    synchronize(device)
    began = time.perf_counter()
    result = call()
    synchronize(device)
    return 1000 * (time.perf_counter() - began), result


def gigabytes_per_second(nbytes: int, milliseconds: float) -> float:
    """Return 10^9 bytes a second."""
    return nbytes / milliseconds / 1e6


class Judge:
    """What NVML says about one GPU: bytes, and None where it does not say."""

    def __init__(self, device: str) -> None:
        """Start NVML and find `device`, torch's name of it, by its UUID: the two may count GPUs differently."""
        self._nvml: Any = None
        self._handle: Any = None
        try:
            import pynvml
            import torch

            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        except Exception:  # noqa: BLE001 - no binding, no driver, a part of a GPU: then nobody judges
            return
        self._nvml = pynvml

    def of_process(self, pid: int | None = None) -> int | None:
        """Return what a process holds on the GPU, its context included; None where that is not told."""
        if self._nvml is None:
            return None
        try:
            running = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except self._nvml.NVMLError:
            return None
        held = [process.usedGpuMemory for process in running if process.pid == (pid or os.getpid())]
        # In a container NVML may name processes by numbers that mean nothing here: not listed is not 0.
        return sum(held) if held and None not in held else None

    def of_card(self) -> int | None:
        """Return what all programs together hold on the GPU."""
        if self._nvml is None:
            return None
        try:
            return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)
        except self._nvml.NVMLError:
            return None


if __name__ == "__main__":
    print(missing() or describe(pick()))

"""The real GPU that a benchmark or a test runs on: whether one works, and how full it is by NVML.

Run as a script it prints the GPU: python build/bench/card.py
"""

from __future__ import annotations

import ctypes
import gc
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

NONE_HERE = 77
"""Exit status of a program that found no GPU to use."""


def has_driver() -> bool:
    """Return whether NVIDIA's driver is installed; imports nothing, so the answer takes no time."""
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    return True


def missing() -> str | None:
    """Return why there is no CUDA GPU to use, None when there is one; makes no context on it."""
    if not has_driver():
        return "the NVIDIA driver is not installed"
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
    reasons = [str(warning.message).splitlines()[0] for warning in said] or ["the driver finds no GPU"]
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
    """Return the milliseconds until the GPU has done the work that `call` queued, and the result."""
    synchronize = module(device).synchronize
    synchronize(device)
    began = time.perf_counter()
    result = call()
    synchronize(device)
    return 1000 * (time.perf_counter() - began), result


def cleared(device: str) -> int:
    """Give back every byte of the GPU that no living tensor needs; return the bytes that torch still holds.

    Cleared too are the workspaces of cuBLAS, which stay after a first computation until they are asked for:
    https://docs.pytorch.org/docs/stable/notes/cuda.html#cublas-workspaces
    """
    import torch

    here = module(device)
    here.synchronize(device)
    if clear_workspaces := getattr(torch._C, "_cuda_clearCublasWorkspaces", None):
        clear_workspaces()
    if here.memory_allocated(device):
        gc.collect()
    here.empty_cache()
    return int(here.memory_reserved(device))


def gigabytes_per_second(nbytes: int, milliseconds: float) -> float:
    """Return 10^9 bytes a second."""
    return nbytes / milliseconds / 1e6


class Judge:
    """NVML's figures of one GPU in bytes, None for a figure that NVML does not have."""

    def __init__(self, device: str) -> None:
        """Start NVML and find `device`, torch's name of it, by its UUID: the two may count GPUs differently."""
        self._nvml: Any = None
        self._handle: Any = None
        try:
            import pynvml
            import torch

            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        except Exception:  # noqa: BLE001 - no binding, no driver, a part of a GPU: then there are no figures
            return
        self._nvml = pynvml

    def of_process(self) -> int | None:
        """Return the bytes that this process holds on the GPU, its context included."""
        if self._nvml is None:
            return None
        try:
            running = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except self._nvml.NVMLError:
            return None
        held = [process.usedGpuMemory for process in running if process.pid == os.getpid()]
        # In a container NVML may name processes by numbers that mean nothing here: not listed is not 0.
        return sum(held) if held and None not in held else None


if __name__ == "__main__":
    print(missing() or describe(pick()))

"""A device's lack of memory, told from every other error and freed of what it holds on to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from engine.devices.placement import CPU
from engine.errors import OutOfMemory, clear_frames, first_line

_SIGNS: Final = (
    "out of memory",
    "out_of_memory",
    "out_of_device_memory",
    "outofmemory",
    "_status_alloc_failed",
    "blas_status_not_initialized when calling `cublascreate",
    "blas_status_not_initialized when calling `hipblascreate",
)
"""What CUDA, ROCm, XPU, MPS and their libraries say, in lower case.

cuBLAS and cuDNN say that an allocation failed, but cuBLAS calls itself not initialized where its first one does: the
call tells that from other uses of the word. It may be said of a sick device too; that one fails again with no batch.
"""

_OF_THE_HOST: Final = "DefaultCPUAllocator"
_ASKED: Final = re.compile(r"tried to allocate ([\d.]+ ?\w+)", re.IGNORECASE)
_ADVICE: Final = " If reserved but unallocated memory is large"
"""Where CUDA's message turns to settings of torch."""


@contextmanager
def out_of_memory_on(device: str) -> Iterator[None]:
    """Raise OutOfMemory for whatever `device` raises for lack of memory; every other error passes.

    What the frames of the error held is dropped first: as long as it lives, it would keep tensors on the device.
    """
    if device == CPU:
        yield
        return
    try:
        yield
    except RuntimeError as error:
        if not _is_lack_of_memory(error):
            raise
        clear_frames(error)
        asked = _ASKED.search(str(error))
        wanted = f" for {asked.group(1)} more" if asked else ""
        said = first_line(error).partition(_ADVICE)[0]
        raise OutOfMemory(
            f"{device} has no memory left{wanted}: {said}",
            next_step="Close a program that uses the GPU, or turn stream_layers on.",
        ) from error


def _is_lack_of_memory(error: RuntimeError) -> bool:
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    said = str(error)
    return any(sign in said.lower() for sign in _SIGNS) and _OF_THE_HOST not in said

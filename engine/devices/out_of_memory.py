"""Out-of-memory errors of a device, recognised among other errors and stripped of the tensors they hold."""

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
"""Parts of the messages of CUDA, ROCm, XPU, MPS and their libraries, in lower case.

cuBLAS and cuDNN report a failed allocation, but when its first one fails, cuBLAS reports that it is not initialized:
the name of the call tells that from other uses of the word. A faulty device may report the same; it then fails again
with the smallest batch.
"""

_OF_THE_HOST: Final = "DefaultCPUAllocator"
_ASKED: Final = re.compile(r"tried to allocate ([\d.]+ ?\w+)", re.IGNORECASE)
_ADVICE: Final = " If reserved but unallocated memory is large"
"""The start of the advice about torch's settings in CUDA's message."""


@contextmanager
def out_of_memory_on(device: str) -> Iterator[None]:
    """Raise OutOfMemory for an out-of-memory error of `device`; other errors pass unchanged.

    The frames of the error are cleared first, because they would keep tensors on the device.
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

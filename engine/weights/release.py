"""The release of a model's memory to the system, without pausing other threads."""

from __future__ import annotations

import gc
import sys
from typing import Any

from engine.weights import libc

_modules_frozen = 0
"""Modules imported at the last `freeze_gc`."""


def freeze_gc() -> None:
    """Exempt all existing objects from garbage collection, if modules were imported since the last call.

    The import of a model library leaves some 400,000 permanent objects. A collection that walks them pauses every
    thread for 0.2 s and more; without them it takes less than a millisecond.
    """
    global _modules_frozen
    if len(sys.modules) > _modules_frozen:
        gc.freeze()
        _modules_frozen = len(sys.modules)


def dismantle(module: Any) -> None:
    """Empty a `torch.nn.Module`, so that its memory is freed with the last reference to each tensor.

    Otherwise its reference cycles keep the memory until a garbage collection. The module is unusable afterwards.
    """
    for part in list(module.modules()):
        vars(part).clear()


def release(*, thoroughly: bool = False) -> None:
    """Collect garbage, except among permanent objects, and return the allocator's free pages to the system.

    `thoroughly` includes the permanent objects (0.2 to 0.7 s). Never call it under a lock or on a request's path.
    """
    if thoroughly:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
    else:
        gc.collect()
    libc.trim_heap()

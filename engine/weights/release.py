"""Take a model apart and give its memory back to the system, without stalling anyone."""

from __future__ import annotations

import gc
import sys
from typing import Any

from engine.weights import libc

_modules_frozen = 0
"""Modules imported at the last `freeze_gc`."""


def freeze_gc() -> None:
    """Exempt all that exists from garbage collection, if modules were imported since the last time.

    A model library's import leaves some 400,000 objects that stay for good. A collection that walks them holds up
    every thread for 0.2 s and more; without them it takes less than a millisecond.
    """
    global _modules_frozen
    if len(sys.modules) > _modules_frozen:
        gc.freeze()
        _modules_frozen = len(sys.modules)


def dismantle(module: Any) -> None:
    """Break a `torch.nn.Module` into its parts, so that its memory is free as soon as the last reference goes.

    Without that its reference cycles wait for a collection. Nobody may use the module any more.
    """
    for part in list(module.modules()):
        vars(part).clear()


def release(*, thoroughly: bool = False) -> None:
    """Return the allocator's free pages to the system, after a garbage collection of what is not permanent.

    `thoroughly` looks through everything (0.2 to 0.7 s). Never call it under a lock or on a request's path.
    """
    if thoroughly:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
    else:
        gc.collect()
    libc.trim_heap()

"""What the system keeps of files in RAM, which belongs to no process."""

from __future__ import annotations

import logging
import os
from pathlib import Path

_log = logging.getLogger(__name__)


def forget(path: Path) -> None:
    """Let the system drop a file from its cache, where it can be asked to; pages that a process uses stay.

    Source: posix_fadvise(2), POSIX_FADV_DONTNEED.
    """
    try:
        with path.open("rb") as file:
            _advise(file.fileno(), 0, 0)
    except OSError as error:
        _log.debug("%s stays in the system's cache: %s", path, error)


def write_soon(descriptor: int, begin: int, length: int) -> None:
    """Let the system begin to write a range of bytes that was just written to a file, where it can be asked to.

    Left to itself it collects gigabytes, and the wait for the disk comes at the end. The range stays in its cache.
    Source: Linux, mm/fadvise.c: the same advice first starts to write what is not on the disk, which it then keeps.
    """
    try:
        _advise(descriptor, begin, length)
    except OSError as error:
        _log.debug("left to the system to write: %s", error)


def _advise(descriptor: int, begin: int, length: int) -> None:
    advise = getattr(os, "posix_fadvise", None)
    if advise is not None:
        advise(descriptor, begin, length, os.__dict__["POSIX_FADV_DONTNEED"])

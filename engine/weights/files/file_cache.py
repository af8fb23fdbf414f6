"""Advice to the system about its cache of files in RAM."""

from __future__ import annotations

import logging
import os
from pathlib import Path

_log = logging.getLogger(__name__)


def forget(path: Path) -> None:
    """Advise the system to drop a file from its cache, if it takes advice; pages in use by a process stay.

    Source: posix_fadvise(2), POSIX_FADV_DONTNEED.
    """
    try:
        with path.open("rb") as file:
            _advise(file.fileno(), 0, 0)
    except OSError as error:
        _log.debug("%s stays in the system's cache: %s", path, error)


def write_soon(descriptor: int, begin: int, length: int) -> None:
    """Advise the system to start writing a range of a file to disk, if it takes advice.

    Without it the system collects gigabytes and the program waits for the disk at the end. The range stays in the
    cache. Source: Linux, mm/fadvise.c: the advice starts the write of pages that are not on disk yet, and keeps them.
    """
    try:
        _advise(descriptor, begin, length)
    except OSError as error:
        _log.debug("left to the system to write: %s", error)


def _advise(descriptor: int, begin: int, length: int) -> None:
    advise = getattr(os, "posix_fadvise", None)
    if advise is not None:
        advise(descriptor, begin, length, os.__dict__["POSIX_FADV_DONTNEED"])

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
    advise = getattr(os, "posix_fadvise", None)
    if advise is None:
        return
    try:
        with path.open("rb") as file:
            advise(file.fileno(), 0, 0, os.__dict__["POSIX_FADV_DONTNEED"])
    except OSError as error:
        _log.debug("%s stays in the system's cache: %s", path, error)

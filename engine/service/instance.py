"""The lock that makes Pilotlight run only once per user."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Final

import filelock

from engine import discovery, paths
from engine.discovery import Endpoint
from engine.errors import PilotlightError

_FIND_OTHER_SECONDS: Final = 5.0


@contextlib.contextmanager
def only_instance() -> Iterator[Endpoint | None]:
    """Hold the instance lock and yield None, or yield the endpoint of the Pilotlight that holds it.

    The other may still be starting, then its discovery file appears soon; or closing, then its lock becomes free.
    Raises PilotlightError if the runtime folder cannot be used.
    """
    folder = paths.runtime_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / "instance.lock")
        give_up = time.monotonic() + _FIND_OTHER_SECONDS
        while not _acquired(lock):
            other = discovery.find()
            if other is not None or time.monotonic() > give_up:
                yield other or Endpoint("", 0, "", "")
                return
    except OSError as error:
        raise PilotlightError(
            f"The folder {folder} cannot be used: {error.strerror or error}.",
            title="Cannot start",
            next_step="Mend its permissions, or let XDG_RUNTIME_DIR or XDG_STATE_HOME name another.",
        ) from error
    try:
        yield None
    finally:
        lock.release()


def _acquired(lock: filelock.BaseFileLock) -> bool:
    try:
        lock.acquire(timeout=0.1)
    except filelock.Timeout:
        return False
    return True

"""The discovery file: it names the endpoint for other apps on this computer."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

from engine.paths import runtime_folder, write_atomically

_CLOCK_SLACK_SECONDS: Final = 86400.0
"""Start times follow the wall clock, which may be set while we run, by hours where two systems share a computer."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running Pilotlight; `token_path` names the file that holds the token for control routes."""

    url: str
    pid: int
    version: str
    token_path: str


def path() -> Path:
    """Return the path of the discovery file."""
    return runtime_folder() / "endpoint.json"


def publish(endpoint: Endpoint) -> None:
    """Write the discovery file, readable by this user alone, over one left by a dead process."""
    write_atomically(path(), json.dumps(asdict(endpoint)).encode(), mode=0o600)


def withdraw() -> None:
    """Remove the discovery file if this process wrote it."""
    found = _read()
    if found is not None and found.pid == os.getpid():
        path().unlink(missing_ok=True)


def find() -> Endpoint | None:
    """Return the running Pilotlight, None if there is none or the file was left by a dead one."""
    found = _read()
    return found if found is not None and _is_alive(found.pid) else None


def _is_alive(pid: int) -> bool:
    """Return whether the process that wrote the file still runs; another may have its number by now."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return process.create_time() <= path().stat().st_mtime + _CLOCK_SLACK_SECONDS
    except (psutil.Error, OSError, ValueError):
        return False


def _read() -> Endpoint | None:
    try:
        found = Endpoint(**json.loads(path().read_text(encoding="utf-8")))
        texts = (found.url, found.version, found.token_path)
        fits = type(found.pid) is int and found.pid > 0 and all(isinstance(text, str) for text in texts)
        return found if fits and found.url.startswith("http://") else None
    except (OSError, ValueError, TypeError):
        return None

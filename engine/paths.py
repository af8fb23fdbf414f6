"""The folders and files of Pilotlight, by the platform's own conventions, and the ways to write them."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import resources
from pathlib import Path
from typing import Final

import platformdirs

_log = logging.getLogger(__name__)

_APP: Final = "pilotlight"


def settings_file() -> Path:
    """Return the settings file in the user's configuration folder."""
    return platformdirs.user_config_path(_APP, appauthor=False) / "settings.toml"


def state_folder() -> Path:
    """Return the folder for the token and the log."""
    return platformdirs.user_state_path(_APP, appauthor=False)


def cache_folder() -> Path:
    """Return the folder for files that can be made again: converted weights."""
    return platformdirs.user_cache_path(_APP, appauthor=False)


def runtime_folder() -> Path:
    """Return the folder for the discovery file and the instance lock, needed as long as the program runs.

    `$XDG_RUNTIME_DIR/pilotlight` if that variable names a folder, else the state folder.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / _APP if runtime and Path(runtime).is_dir() else state_folder()


def shipped(name: str) -> Path:
    """Return a file that is part of Pilotlight: inside the installed package, or at the top of a checkout."""
    packaged = Path(str(resources.files("engine"))) / "assets" / name
    return packaged if packaged.is_file() else Path(__file__).parent.parent / "assets" / name


def is_frozen() -> bool:
    """Return whether this is a packaged app with a Python of its own, which takes no more packages."""
    return bool(getattr(sys, "frozen", False))


@contextmanager
def file_lock(path: Path, seconds: float = 10.0) -> Iterator[None]:
    """Hold the lock of `path` against every other thread and process of this user that asks for it.

    The lock is a file in the state folder, because the folder of `path` may be read-only; if the state folder is
    read-only too, nothing is locked. The lock of a killed process is free. Raises TimeoutError after `seconds`.
    """
    import filelock

    key = hashlib.sha256(os.path.normcase(path.resolve()).encode(errors="surrogateescape")).hexdigest()[:16]
    with ExitStack() as stack:
        try:
            state_folder().mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = filelock.FileLock(state_folder() / f"writing-{key}.lock", timeout=seconds)
            stack.enter_context(lock)
        except filelock.Timeout:
            raise
        except (OSError, NotImplementedError) as error:
            _log.warning("%s is written without a lock: %s", path, error)
        yield


def write_atomically(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Replace `path` whole or not at all, also when the disk is full or the power fails.

    `mode` sets the permissions; None keeps those of the replaced file. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode is None:
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise

"""Where Pilotlight keeps its files, by the platform's own conventions."""

from __future__ import annotations

import hashlib
import logging
import os
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
    """The settings file in the user's configuration folder."""
    return platformdirs.user_config_path(_APP, appauthor=False) / "settings.toml"


def state_folder() -> Path:
    """The folder for the token and the log."""
    return platformdirs.user_state_path(_APP, appauthor=False)


def cache_folder() -> Path:
    """The folder for what can be made again: weights converted once."""
    return platformdirs.user_cache_path(_APP, appauthor=False)


def runtime_folder() -> Path:
    """The folder for what lives as long as the program: the discovery file and the instance lock.

    `$XDG_RUNTIME_DIR/pilotlight` where that is set and there, else the state folder.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / _APP if runtime and Path(runtime).is_dir() else state_folder()


def shipped(name: str) -> Path:
    """Return a file that comes with Pilotlight: inside the installed package, or at the top of a checkout."""
    packaged = Path(str(resources.files("engine"))) / "assets" / name
    return packaged if packaged.is_file() else Path(__file__).parent.parent / "assets" / name


@contextmanager
def alone_with(path: Path, seconds: float = 10.0) -> Iterator[None]:
    """Keep every other thread and process of this user that asks for the same `path` out for as long as this is open.

    The lock stands in the state folder, as `path` may be where nothing can be written; where that is so for both, there
    is none. One that a killed process held is free. Raises TimeoutError after so many seconds.
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

    `mode` sets the permissions; None keeps those of the file that is replaced. Raises OSError.
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

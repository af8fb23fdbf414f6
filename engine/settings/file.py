"""The settings file: read, watched, and edited in place so that comments survive."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from engine.errors import SettingsError
from engine.events import Event, SettingsRefused
from engine.paths import file_lock, shipped, write_atomically
from engine.settings import toml as configtext
from engine.settings.config import Config
from engine.settings.parsing import parse
from engine.settings.toml import Key as Key

_log = logging.getLogger(__name__)

_WATCH_SECONDS: Final = 1.0


class SettingsFile:
    """Owns the settings file: the tray, the endpoint and a hand edit all go through here.

    A file that cannot be used changes nothing: the settings from before stay in force, `problem` says why, and the
    file is left as it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: SettingsError | None = None
        self._lock = threading.RLock()
        self._config = Config()
        self._text = shipped("settings.toml").read_text(encoding="utf-8")
        self._stamp: tuple[int, ...] | None = None
        self._emptied: tuple[int, ...] | None = None
        self._apply: Callable[[Config], None] = lambda config: None
        self._publish: Callable[[Event], None] = lambda event: None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> Config:
        """Return the settings at start; writes the commented defaults where there is no file yet.

        A file that cannot be used gives the defaults and sets `problem`.
        """
        with self._lock:
            if not self.path.exists():
                try:
                    self._write_defaults()
                except OSError as error:
                    self.problem = SettingsError(f"{self.path} could not be written: {error.strerror or error}.")
                    _log.warning("%s", self.problem)
                    return self._config
            self._stamp = self._read_stamp()
            try:
                self._text, self._config = _read(self.path)
            except SettingsError as error:
                self.problem = error
                _log.error("%s", error)
            return self._config

    def read(self) -> Config:
        """Return what the file says, the defaults where there is none; writes nothing. Raises SettingsError."""
        return _read(self.path)[1] if self.path.exists() else Config()

    def watch(self, apply: Callable[[Config], None], publish: Callable[[Event], None]) -> None:
        """Call `apply` with every new version, and `publish` when one cannot be used; starts a thread."""
        self._apply, self._publish = apply, publish
        if self.problem is not None:
            publish(SettingsRefused(self.problem))
        self._thread = threading.Thread(target=self._run, name="engine-settings", daemon=True)
        self._thread.start()

    def close(self, timeout: float = 2.0) -> None:
        """Stop watching."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                _log.warning("%s is still at work after %.1f s", self._thread.name, timeout)

    def check(self) -> None:
        """Read the file again if it changed, and put it in force or say why not."""
        with self._lock:
            stamp = self._read_stamp()
            if stamp is None or stamp == self._stamp:
                return
            if self.path.is_file() and not stamp[1] and stamp != self._emptied:
                # Some editors empty a file before they write it; a file that is meant to be empty is so a second later.
                self._emptied = stamp
                return
            self._stamp = stamp
            try:
                self._text, config = _read(self.path)
            except SettingsError as error:
                self.problem = error
                _log.error("%s The settings from before stay in force.", error)
                self._publish(SettingsRefused(error))
                return
            self._accept(config)

    def edit(self, changes: Mapping[Key, Any]) -> Config:
        """Write `changes` (a None takes the key out) into the file, keep its comments, and put them in force.

        Raises SettingsError, with file and settings unchanged, when a value is not valid, when the file on disk has
        a mistake already, or when it cannot be written.
        """
        with self._lock, self._alone():
            return self._put(lambda text: configtext.with_changes(text, changes))

    def add(self, name: str, values: Mapping[str, Any]) -> Config:
        """Write a new encoder's table into the file; raises SettingsError as `edit` does, and for a name in use."""
        with self._lock, self._alone():
            self.check()
            if any(name == encoder.name for encoder in self._config.encoders):
                raise SettingsError(
                    f"There is an encoder {name} already, so nothing was changed.",
                    next_step=f"Take another name, or change [encoders.{name}] in {self.path}.",
                )
            return self._put(lambda text: configtext.with_encoder(text, name, values))

    def _put(self, changed: Callable[[str], str]) -> Config:
        """Write what `changed` makes of the file as it is now, and put it in force."""
        self.check()
        if self.problem is not None and self.path.exists():
            raise SettingsError(
                f"The settings file has a mistake, so nothing was changed: {self.problem.message}",
                next_step="Mend the file first.",
            )
        try:
            text = changed(self._text)
            data = text.encode()
            mapping = configtext.loads(text)
        except (TypeError, ValueError) as error:
            raise SettingsError(f"A value cannot be written as TOML, so nothing was changed: {error}.") from error
        config = parse(mapping)
        try:
            write_atomically(self.path.resolve(), data)
        except OSError as error:
            raise SettingsError(
                f"{self.path} could not be written, so nothing was changed: {error.strerror or error}.",
                next_step="Free some disk space or mend the permissions, then try again.",
            ) from error
        self._text, self._stamp = text, self._read_stamp()
        self._accept(config)
        return config

    def _write_defaults(self) -> None:
        with file_lock(self.path):
            # Another process may have been faster, and have written more since.
            if not self.path.exists():
                write_atomically(self.path.resolve(), self._text.encode())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other process that writes the file come between what is read here and what is written."""
        try:
            with file_lock(self.path):
                yield
        except TimeoutError as error:
            raise SettingsError(
                f"Another program has been writing {self.path} for some time, so nothing was changed.",
                next_step="Try again.",
            ) from error

    def _accept(self, config: Config) -> None:
        self.problem = None
        if config.server != self._config.server:
            _log.warning("a change of [server] comes into force at the next start")
        self._config = config
        self._apply(config)

    def _read_stamp(self) -> tuple[int, ...] | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _run(self) -> None:
        while not self._stopping.wait(_WATCH_SECONDS):
            try:
                self.check()
            except Exception:  # noqa: BLE001 - a worker's tick
                _log.exception("the settings could not be put in force")


def _read(path: Path) -> tuple[str, Config]:
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 text (byte {error.start}).") from error
    except OSError as error:
        raise SettingsError(f"{path} could not be read: {error.strerror}.") from error
    return text, _parsed(text, path)


def _parsed(text: str, path: Path) -> Config:
    try:
        return parse(configtext.loads(text))
    except (ValueError, RecursionError) as error:
        # Besides TOMLDecodeError: an integer of thousands of digits, brackets nested a thousand deep.
        raise SettingsError(f"{path} is not valid TOML: {error}.") from error
    except SettingsError as error:
        lines = [f"{_place(text, path, problem.path)}: {problem}." for problem in error.problems]
        raise SettingsError("\n".join(lines), problems=error.problems) from error


def _place(text: str, path: Path, key: Key) -> str:
    line = configtext.line_of(text, key)
    return f"{path}, line {line}" if line else str(path)

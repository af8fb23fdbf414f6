"""The settings file: read, watched, and edited in place so that comments survive."""

from __future__ import annotations

import logging
import re
import threading
import tomllib
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

from engine.config import DEFAULT_ENCODER, Config
from engine.errors import SettingsError
from engine.events import Event, SettingsRefused
from engine.parsing import parse
from engine.paths import write_atomically

_log = logging.getLogger(__name__)

_WATCH_SECONDS: Final = 1.0

_DEFAULT_TABLE: Final = {
    "kind": DEFAULT_ENCODER.kind,
    "model": DEFAULT_ENCODER.model,
    "aliases": list(DEFAULT_ENCODER.aliases),
}

Key = tuple[str, ...]
"""Where a setting stands: `("hardware", "lazy_encoders")` or `("encoders", "minilm", "pin")`."""


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
                    write_atomically(self.path.resolve(), self._text.encode())
                except OSError as error:
                    self.problem = SettingsError(f"{self.path} could not be written: {error.strerror}.")
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
        import tomlkit

        with self._lock:
            self.check()
            if self.problem is not None and self.path.exists():
                raise SettingsError(
                    f"The settings file has a mistake, so nothing was changed: {self.problem.message}",
                    next_step="Mend the file first.",
                )
            document = tomlkit.parse(self._text)
            try:
                for key, value in changes.items():
                    self._set(document, key, value)
                text = tomlkit.dumps(document)
                data = text.encode()
                mapping = tomllib.loads(text.replace("\r\n", "\n"))
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

    def add(self, name: str, values: Mapping[str, Any]) -> Config:
        """Write a new encoder's table into the file; raises SettingsError as `edit` does, and for a name in use."""
        with self._lock:
            self.check()
            if any(name == encoder.name for encoder in self._config.encoders):
                raise SettingsError(
                    f"There is an encoder {name} already, so nothing was changed.",
                    next_step=f"Take another name, or change [encoders.{name}] in {self.path}.",
                )
            return self.edit({("encoders", name): dict(values)})

    def _accept(self, config: Config) -> None:
        self.problem = None
        if config.server != self._config.server:
            _log.warning("a change of [server] comes into force at the next start")
        self._config = config
        self._apply(config)

    def _set(self, document: Any, key: Key, value: Any) -> None:
        if key[0] == "encoders" and "encoders" not in document:
            # What a file without encoders means; one that names any means those alone.
            document["encoders"] = {DEFAULT_ENCODER.name: _DEFAULT_TABLE}
        table = document
        for part in key[:-1]:
            if part not in table:
                table[part] = {}
            table = table[part]
        if value is None:
            table.pop(key[-1], None)
        else:
            table[key[-1]] = value

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


def shipped(name: str) -> Path:
    """Return a file that comes with Pilotlight: inside the installed package, or at the top of a checkout."""
    packaged = Path(str(resources.files("engine"))) / "assets" / name
    return packaged if packaged.is_file() else Path(__file__).parent.parent / "assets" / name


def _read(path: Path) -> tuple[str, Config]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 text (byte {error.start}).") from error
    except OSError as error:
        raise SettingsError(f"{path} could not be read: {error.strerror}.") from error
    return text, _parsed(text, path)


def _parsed(text: str, path: Path) -> Config:
    try:
        return parse(tomllib.loads(text.replace("\r\n", "\n")))
    except (ValueError, RecursionError) as error:
        # Besides TOMLDecodeError: an integer of thousands of digits, brackets nested a thousand deep.
        raise SettingsError(f"{path} is not valid TOML: {error}.") from error
    except SettingsError as error:
        lines = [f"{_place(text, path, problem.path)}: {problem}." for problem in error.problems]
        raise SettingsError("\n".join(lines), problems=error.problems) from error


def _place(text: str, path: Path, key: Key) -> str:
    line = _line_of(text, key)
    return f"{path}, line {line}" if line else str(path)


def _line_of(text: str, key: Key) -> int | None:
    """The line where a key, or failing that its table, is written; None where it is spelled some other way."""
    table: Key = ()
    header_line = None
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[{1,2}([^\[\]]+)\]{1,2}", line):
            table = _split(header[1])
            if table == key[: len(table)] and (table == key or table == key[:-1]):
                header_line = header_line or number
        elif (assignment := re.match(r"\s*([^#=\[]+?)\s*=", line)) and (*table, *_split(assignment[1])) == key:
            return number
    return header_line


def _split(dotted: str) -> Key:
    """The parts of a dotted key, of which a quoted one may hold dots itself."""
    return tuple(part.strip("\"'") for part in re.findall(r""""[^"]*"|'[^']*'|[^\s."']+""", dotted))

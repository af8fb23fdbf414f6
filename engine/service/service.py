"""The program without its tray: settings, engine and endpoint, opened in order and closed in reverse."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final

import filelock

from engine import discovery, paths, power
from engine.discovery import Endpoint
from engine.engine import Engine
from engine.errors import PilotlightError
from engine.http.app import create_app
from engine.http.security import token
from engine.http.server import Server, bind
from engine.settings.file import SettingsFile

_log = logging.getLogger(__name__)

# With the tray's own limits they stay below 5 s together, also when every one of them is used up.
_REFUSE_SECONDS: Final = 0.5
_CLOSE_SERVER_SECONDS: Final = 1.5
_CLOSE_SETTINGS_SECONDS: Final = 0.5
_CLOSE_POWER_SECONDS: Final = 0.3
_CLOSE_ENGINE_SECONDS: Final = 1.0
_FIND_OTHER_SECONDS: Final = 5.0
_REPEAT_SECONDS: Final = 0.3

_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, a polite kill, and on POSIX the closing of the terminal."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line may say over the settings."""

    host: str | None = None
    port: int | None = None
    config: Path | None = None


def run(options: Options, attend: Attend | None = None) -> int:
    """Run Pilotlight until somebody quits it; returns the exit status.

    `attend` may show it to the user: it is called on this thread once all is open, and returns at the end.
    """
    with ExitStack() as steps:
        other = steps.enter_context(_only_one())
        if other is not None:
            where = f" at {other.url}" if other.url else ""
            print(f"Pilotlight is already running{where}.")  # noqa: T201 - the answer to a command
            return 0
        steps.enter_context(_logging())
        clean = _serve(options, attend or _wait)
    if not clean:
        # A model that is still loading cannot be interrupted, and ending the interpreter under it would crash.
        logging.shutdown()
        os._exit(0)
    return 0


def version() -> str:
    """The installed version."""
    return metadata.version("pilotlight")


def _serve(options: Options, attend: Attend) -> bool:
    """Open everything, wait for the end, close everything; returns whether nothing was left at work."""
    stop = Stop()
    clean = True
    with ExitStack() as steps:
        steps.enter_context(stop.on_signals())
        settings = SettingsFile(options.config or paths.settings_file())
        config = settings.open()
        engine = Engine(config)

        def close_engine() -> None:
            nonlocal clean
            clean &= engine.close(_CLOSE_ENGINE_SECONDS)

        steps.callback(close_engine)
        host = options.host or config.server.host
        port = config.server.port if options.port is None else options.port
        sockets = bind(host, port)
        token_path = paths.state_folder() / "token"
        app = create_app(
            engine, host=host, token=token(token_path), version=version(), settings=settings, on_quit=stop.request
        )
        server = Server(app, sockets)
        engine.start()
        watch = power.watch(engine.suspend, engine.resume)

        def close_watch() -> None:
            nonlocal clean
            clean &= watch.close(_CLOSE_POWER_SECONDS)

        steps.callback(close_watch)
        settings.watch(engine.apply, engine.events.publish)
        steps.callback(settings.close, _CLOSE_SETTINGS_SECONDS)
        server.start()
        steps.callback(server.stop, _CLOSE_SERVER_SECONDS)
        steps.callback(engine.stop_accepting, _REFUSE_SECONDS)
        try:
            discovery.publish(Endpoint(server.url, os.getpid(), version(), str(token_path)))
        except OSError as error:
            _log.warning(
                "other programs cannot find the endpoint, because %s cannot be written: %s", error.filename, error
            )
        steps.callback(discovery.withdraw)
        if port and not server.url.endswith(f":{port}"):
            _log.warning("port %d is busy, so the endpoint is at %s", port, server.url)
        _log.info("Pilotlight %s serves at %s", version(), server.url)
        attend(Service(engine, settings, server.url, stop))
        _log.info("closing")
    return clean


class Stop:
    """The wish to end, from a signal, the menu or the endpoint; a second signal ends at once."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._also: Callable[[], None] | None = None
        self._signalled_at: float | None = None

    def request(self) -> None:
        """Ask for the end; returns at once, from any thread."""
        self._requested.set()
        if self._also is not None:
            threading.Thread(target=self._also, name="engine-stop", daemon=True).start()

    def wait(self) -> None:
        """Wait until the end is requested."""
        # Waiting with a limit lets signals through on Windows.
        while not self._requested.wait(1.0):
            pass

    @contextlib.contextmanager
    def also(self, call: Callable[[], None]) -> Iterator[None]:
        """Make a request call `call` too, at once if it was made already."""
        self._also = call
        if self._requested.is_set():
            self.request()
        try:
            yield
        finally:
            self._also = None

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Turn the signals that mean the end into requests."""
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        self.catch_signals()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def catch_signals(self) -> None:
        """Install the handlers; once more after a GUI loop has put its own."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if self._signalled_at is not None:
            # A kill of a process and then of its group arrives twice; only a person repeats himself later.
            if now - self._signalled_at > _REPEAT_SECONDS:
                discovery.withdraw()
                os._exit(128 + number)
            return
        self._signalled_at = now
        # On a thread, because this one may be inside `wait()` and hold the very lock that `set()` takes.
        threading.Thread(target=self.request, name="engine-stop", daemon=True).start()


@dataclass(frozen=True, slots=True)
class Service:
    """What is open while the program runs."""

    engine: Engine
    settings: SettingsFile
    url: str
    stop: Stop


Attend = Callable[[Service], None]


def _wait(service: Service) -> None:
    service.stop.wait()


@contextlib.contextmanager
def _only_one() -> Iterator[Endpoint | None]:
    """Hold the instance lock and yield None, or yield where the Pilotlight is that holds it.

    The other may still be starting, then its discovery file is about to come; or closing, then its lock comes free.
    """
    folder = paths.runtime_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / "instance.lock")
        give_up = time.monotonic() + _FIND_OTHER_SECONDS
        while not _acquired(lock):
            found = discovery.find()
            if found is not None or time.monotonic() > give_up:
                yield found or Endpoint("", 0, "", "")
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


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    """Log to the terminal where there is one, and to a file that stays small."""
    handlers: list[logging.Handler] = []
    if sys.stderr is not None:
        handlers.append(logging.StreamHandler())
    path = paths.state_folder() / "pilotlight.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(RotatingFileHandler(path, maxBytes=1_000_000, backupCount=1, encoding="utf-8"))
    except OSError as error:
        if sys.stderr is not None:
            sys.stderr.write(f"no log file: {error}\n")
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(threadName)s: %(message)s"))
        root.addHandler(handler)
    for chatty in ("sentence_transformers", "transformers", "httpx", "uvicorn", "filelock"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        yield
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()

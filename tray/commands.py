"""What a click does: each command in turn on one worker thread, its errors as notices."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from engine.errors import PilotlightError
from tray import notices
from tray.menu import Command, CopyEndpoint, OffloadAll, OpenSettings, Quit, SetIdleTimeout, SetLazy
from tray.notices import Notice

_log = logging.getLogger(__name__)


class OutcomeLike(Protocol):
    """What came of one encoder's offload."""

    @property
    def name(self) -> str: ...
    @property
    def result(self) -> str: ...


class EngineLike(Protocol):
    """The engine, as far as a click reaches."""

    def offload_all(self) -> tuple[OutcomeLike, ...]:
        """Take every encoder that nobody uses off its device."""
        ...


class SettingsLike(Protocol):
    """The settings file, as far as a click reaches."""

    @property
    def path(self) -> Path: ...

    def edit(self, changes: dict[tuple[str, ...], Any], /) -> object:
        """Write `changes` into the file and put them in force; raises SettingsError."""
        ...


class DesktopLike(Protocol):
    """What the desktop does for us; both raise PilotlightError."""

    def copy_text(self, text: str) -> None: ...
    def open_file(self, path: Path) -> None: ...


class Commands:
    """Runs commands in the order of the clicks, on the thread `tray-commands`."""

    def __init__(
        self,
        engine: EngineLike,
        settings: SettingsLike,
        desktop: DesktopLike,
        *,
        notify: Callable[[Notice], None],
        on_done: Callable[[], None],
        on_quit: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._desktop = desktop
        self._notify = notify
        self._on_done = on_done
        self._on_quit = on_quit
        self._clicks: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tray-commands", daemon=True)

    def start(self) -> None:
        """Start the worker."""
        self._thread.start()

    def put(self, command: Command) -> None:
        """Take a click and return at once; `Quit` overtakes the clicks that still wait."""
        if isinstance(command, Quit):
            self._on_quit()
        else:
            self._clicks.put(command)

    def close(self, timeout: float = 0.5) -> None:
        """Drop what waits and let the command at work end, for at most `timeout` seconds."""
        self._closing.set()
        self._clicks.put(None)
        if self._thread.ident is None or self._thread is threading.current_thread():
            return
        self._thread.join(timeout)
        if self._thread.is_alive():
            _log.warning("a tray command was still at work after %g s and was left behind", timeout)

    def _work(self) -> None:
        while (command := self._clicks.get()) is not None and not self._closing.is_set():
            self._run(command)
            self._on_done()

    def _run(self, command: Command) -> None:
        try:
            self._do(command)
        except PilotlightError as error:
            _log.warning("%s: %s", command, error)
            self._notify(notices.of_error(error))
        except Exception:  # noqa: BLE001 - the tray command edge: the worker outlives one bad click
            _log.exception("%s failed", command)
            self._notify(Notice("That did not work", "Pilotlight met an error of its own; the log has the details."))

    def _do(self, command: Command) -> None:
        match command:
            case SetLazy(lazy):
                self._settings.edit({("hardware", "lazy_encoders"): lazy})
            case SetIdleTimeout(seconds):
                value = int(seconds) if float(seconds).is_integer() else seconds
                self._settings.edit({("hardware", "idle_timeout_seconds"): value})
            case OffloadAll():
                busy = [outcome.name for outcome in self._engine.offload_all() if outcome.result == "busy"]
                if busy:
                    self._notify(Notice("Still in use", f"{', '.join(busy)}: in use, so left where it is."))
            case CopyEndpoint(url):
                self._desktop.copy_text(url)
            case OpenSettings():
                self._desktop.open_file(self._settings.path)
            case Quit():
                self._on_quit()

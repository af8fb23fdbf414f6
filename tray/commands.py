"""The clicks: each command runs in turn on one worker thread, and its error becomes a notice."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Protocol

from engine import Closed, EngineInterface, LoadFailed, Outcome, PilotlightError, State, Unavailable
from engine.settings.file import SettingsFile
from engine.settings.naming import settings_key
from tray import notices
from tray.menu.item import (
    Command,
    CopyEndpoint,
    LoadEncoder,
    OffloadAll,
    OffloadEncoder,
    OpenSettings,
    PinEncoder,
    Quit,
    SetEagerLoad,
    SetIdleTimeout,
    SetLazy,
    SetMaxVram,
    SetUnloadTimeout,
    UnloadAll,
    UnloadEncoder,
)
from tray.notices import Notice

_log = logging.getLogger(__name__)


class Desktop(Protocol):
    """The desktop's clipboard and text editor, as `tray.platform` has them; both raise PilotlightError."""

    def copy_text(self, text: str) -> None: ...
    def open_file(self, path: Path) -> None: ...


class Commands:
    """Runs commands in the order of the clicks, on the thread `tray-commands`."""

    def __init__(
        self,
        engine: EngineInterface,
        settings: SettingsFile,
        desktop: Desktop,
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
        """Start the worker thread."""
        self._thread.start()

    def put(self, command: Command) -> None:
        """Queue a click and return at once; `Quit` overtakes the clicks that still wait."""
        if isinstance(command, Quit):
            self._on_quit()
        else:
            self._clicks.put(command)

    def close(self, timeout: float = 0.5) -> None:
        """Drop the clicks that wait, and wait at most `timeout` seconds for the one that runs."""
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
        except Exception as error:  # noqa: BLE001 - the tray command edge: the worker survives one bad click
            self._tell_error(command, error)

    def _do(self, command: Command) -> None:
        match command:
            case SetLazy(lazy):
                self._settings.edit({("hardware", "lazy_encoders"): lazy})
            case SetEagerLoad(eager):
                self._settings.edit({("hardware", "eager_load"): eager})
            case SetIdleTimeout(seconds):
                self._settings.edit({("hardware", "idle_timeout_seconds"): _plain(seconds)})
            case SetUnloadTimeout(seconds):
                self._settings.edit({("hardware", "unload_timeout_seconds"): _plain(seconds)})
            case SetMaxVram(budget):
                self._settings.edit({("hardware", "max_vram"): budget})
            case LoadEncoder(name):
                self._engine.submit_load(name, retry=True).add_done_callback(partial(self._loaded, command))
            case OffloadEncoder(name):
                self._tell((self._engine.offload(name),), State.IN_RAM)
            case UnloadEncoder(name):
                self._tell((self._engine.unload(name),), State.UNLOADED)
            case PinEncoder(name, pinned):
                self._settings.edit({(*settings_key(self._engine.config, name), "pin"): pinned})
                # An app may have pinned it without the file, so an edit that changes nothing would not unpin it.
                outcome = (self._engine.pin if pinned else self._engine.unpin)(name)
                if outcome.reason:
                    self._notify(Notice(f"{name} stays pinned", outcome.reason))
            case OffloadAll():
                self._tell(self._engine.offload_all(), State.IN_RAM)
            case UnloadAll():
                self._tell(self._engine.unload_all(), State.UNLOADED)
            case CopyEndpoint(url):
                self._desktop.copy_text(url)
            case OpenSettings():
                self._desktop.open_file(self._settings.path)
            case Quit():
                self._on_quit()

    def _loaded(self, command: Command, load: Future[Outcome]) -> None:
        """Report how a load ended; called on the encoder's own thread, some time after the click."""
        if load.cancelled() or (error := load.exception()) is None or self._closing.is_set():
            return
        if isinstance(error, LoadFailed | Unavailable | Closed):  # its change of state has been told already
            _log.info("%s: %s", command, error)
        else:
            self._tell_error(command, error)

    def _tell(self, outcomes: tuple[Outcome, ...], asked: State) -> None:
        if (notice := notices.of_outcomes(outcomes, asked)) is not None:
            self._notify(notice)

    def _tell_error(self, command: Command, error: BaseException) -> None:
        if isinstance(error, PilotlightError):
            _log.warning("%s: %s", command, error)
            self._notify(notices.of_error(error))
        else:
            _log.error("%s failed", command, exc_info=error)
            self._notify(Notice("That did not work", "Pilotlight met an error of its own; the log has the details."))


def _plain(seconds: float) -> float:
    """Return whole seconds as an integer, as a user writes them in the file."""
    return int(seconds) if float(seconds).is_integer() else seconds

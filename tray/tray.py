"""The tray: watches the engine, shows its state, passes clicks on."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Final

from engine import EngineInterface
from engine.events import Event, TimerSet
from engine.settings.file import SettingsFile
from tray import notices, platform
from tray.commands import Commands
from tray.icon.picture import Flame
from tray.icon.renderer import Renderer
from tray.menu import menu
from tray.menu.item import Command, Item
from tray.menu.menu import Snapshot
from tray.notices import Notice

_log = logging.getLogger(__name__)

REFRESH_SECONDS: Final = 1.0


class Tray:
    """The tray icon of one engine; `run` on the main thread, `stop` from any.

    Looking at the engine loads nothing, wakes no encoder and resets no clock.
    """

    def __init__(self, engine: EngineInterface, settings: SettingsFile, url: str, on_quit: Callable[[], None]) -> None:
        """Take the engine to show; a click on `Quit` calls `on_quit`, which must return at once and may call `stop`."""
        self._engine = engine
        self._settings = settings
        self._url = url
        self._gpus: frozenset[int] = frozenset()
        self._told: Notice | None = None
        self._renderer: Renderer | None = None
        self._stopping = threading.Event()
        self._inbox: queue.SimpleQueue[Event | None] = queue.SimpleQueue()  # an event, or None for "look again"
        self._commands = Commands(
            engine,
            settings,
            platform,
            notify=self._notify,
            on_done=lambda: self._inbox.put(None),
            on_quit=on_quit,
        )
        self._refresher = threading.Thread(target=self._refresh_until_stopped, name="tray-refresh", daemon=True)

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Show the icon until `stop`, and call `on_ready` on this thread once the icon is up.

        Raises TrayUnavailable. Call `platform.tray_problem()` first.
        """
        platform.prepare()
        self._renderer = Renderer(platform.BACKEND, self._click, *self._look())
        if self._stopping.is_set():
            return
        if words := platform.host_missing():
            _log.warning("%s", words)
        unsubscribe = self._engine.events.subscribe(self._hear)
        self._commands.start()
        try:
            self._renderer.run(lambda: self._begin(on_ready))
        finally:
            unsubscribe()
            self._stopping.set()
            self._inbox.put(None)
            self._commands.close()
            if self._refresher.ident is not None:
                self._refresher.join(0.5)

    def stop(self) -> None:
        """Remove the icon and let `run` return."""
        self._stopping.set()
        if self._renderer is not None:
            self._renderer.stop()

    def _begin(self, on_ready: Callable[[], None]) -> None:
        self._refresher.start()
        if (problem := self._settings.problem) is not None:
            self._notify(notices.of_error(problem))
        on_ready()

    def _click(self, command: Command) -> None:
        self._told = None  # the user now waits for an answer, so the same notice must be shown again
        self._commands.put(command)

    def _hear(self, event: Event) -> None:
        # Every request may set a timer; the refresh of the next second shows it early enough.
        if not isinstance(event, TimerSet):
            self._inbox.put(event)

    def _refresh_until_stopped(self) -> None:
        failing = False
        while not self._stopping.is_set():
            try:
                event = self._inbox.get(timeout=REFRESH_SECONDS)
            except queue.Empty:
                event = None
            try:
                if event is not None and (notice := notices.notice_for(event)) is not None:
                    self._notify(notice)
                if self._inbox.empty() and self._renderer is not None and not self._stopping.is_set():
                    self._renderer.show(*self._look())
                failing = False
            except Exception:  # noqa: BLE001 - a worker's tick: the next second may succeed
                if not failing:
                    _log.exception("the tray could not be refreshed")
                failing = True

    def _look(self) -> tuple[tuple[Item, ...], Flame, str]:
        """Return the present menu, flame and tooltip."""
        views, reading = self._engine.views(measured=True), self._engine.read_memory()
        self._gpus |= {device.index for device in reading.devices}
        snapshot = Snapshot(
            config=self._engine.config,
            views=views,
            reading=reading,
            now=self._engine.clock(),
            url=self._url,
            gpus=tuple(sorted(self._gpus)),
            settings_problem=self._settings.problem is not None,
        )
        return menu.build(snapshot), Flame.of(views), menu.headline(views)

    def _notify(self, notice: Notice) -> None:
        """Show `notice`, unless it repeats the last one without a click since then, as a retry may fail again."""
        if notice != self._told and self._renderer is not None:
            self._told = notice
            self._renderer.notify(notice)

"""The icon and its menu, drawn by pystray, which is imported only where there is a desktop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from engine import PilotlightError
from tray.icon.backend import Backend
from tray.icon.picture import Flame, draw
from tray.menu.item import SEPARATOR, Command, Item, shape
from tray.notices import Notice

_log = logging.getLogger(__name__)

# Windows' own limits less the closing null, in UTF-16 units; longer texts raise there, and no panel shows more.
LONGEST_TOOLTIP: Final = 127
LONGEST_BALLOON: Final = 255
LONGEST_BALLOON_TITLE: Final = 63


class TrayUnavailable(PilotlightError):
    """pystray cannot show an icon here."""

    title = "No tray icon"


class Renderer:
    """One tray icon with its menu; made and run on the main thread."""

    def __init__(
        self, backend: str, on_click: Callable[[Command], None], rows: tuple[Item, ...], flame: Flame, tooltip: str
    ) -> None:
        """Take the first menu and icon, and pystray's name of the `backend`; raises TrayUnavailable."""
        try:
            import pystray

            self._backend = _backend(backend)
            icon_class = self._backend.icon_class(pystray)
        except Exception as error:
            _log.debug("pystray cannot start", exc_info=True)
            raise TrayUnavailable(f"The tray icon cannot be shown: {error}") from error
        self._pystray = pystray
        self._on_click = on_click
        self._cells: list[_Cell] = []
        self._rows: tuple[Item, ...] = ()
        self._flame = flame
        self._tooltip = clipped(tooltip, LONGEST_TOOLTIP)
        self._stopping = False
        self._lock = threading.Lock()
        self._icon: Any = icon_class("pilotlight", draw(flame), self._tooltip, self._menu(rows))

    def run(self, on_ready: Callable[[], None]) -> None:
        """Show the icon until `stop`, and call `on_ready` once, on this thread, when the icon is up."""
        try:
            self._icon.run(lambda icon: self._set_up(on_ready))
        finally:
            self._icon.clean_up()

    def stop(self) -> None:
        """Remove the icon and let `run` return; from any thread, and at any time."""
        self._stopping = True
        self._icon.stop()

    def show(self, rows: tuple[Item, ...], flame: Flame, tooltip: str) -> None:
        """Replace menu, icon and tooltip, and touch only the parts that differ; from any thread."""
        with self._lock:
            if rows != self._rows:
                if shape(rows) == shape(self._rows):
                    self._fill(rows)
                    self._icon.update_menu()
                else:
                    self._icon.menu = self._menu(rows)
            if flame is not self._flame:
                self._flame = flame
                self._icon.icon = draw(flame)
            self._tooltip = self._icon.title = clipped(tooltip, LONGEST_TOOLTIP)
            self._icon.tick()

    def notify(self, notice: Notice) -> None:
        """Show a balloon, or nothing if the desktop has no service for it; from any thread."""
        try:
            self._icon.notify(
                clipped(notice.message, LONGEST_BALLOON) or " ", clipped(notice.title, LONGEST_BALLOON_TITLE)
            )
        except OSError as error:
            _log.info("a notice could not be shown: %s", error)

    def _set_up(self, on_ready: Callable[[], None]) -> None:
        self._icon.visible = True
        self._icon.on_loop(on_ready)
        if self._stopping:  # stop() was called before there was a loop to end
            self._icon.stop()

    def _menu(self, rows: tuple[Item, ...]) -> Any:
        """Make a pystray menu whose items read cells, so that `_fill` can change them in place."""
        self._rows = rows
        self._cells = []
        return self._submenu(rows)

    def _submenu(self, rows: tuple[Item, ...]) -> Any:
        return self._pystray.Menu(*[self._entry(row) for row in rows])

    def _entry(self, row: Item) -> Any:
        if row is SEPARATOR:
            return self._pystray.Menu.SEPARATOR
        cell = _Cell(row)
        self._cells.append(cell)

        def click() -> None:
            if cell.item.command is not None:
                self._on_click(cell.item.command)

        return self._pystray.MenuItem(
            lambda _: self._backend.written(cell.item),
            self._submenu(row.children) if row.children else click,
            checked=None if row.checked is None else lambda _: bool(cell.item.checked),
            radio=row.radio,
            enabled=lambda _: cell.item.enabled,
        )

    def _fill(self, rows: tuple[Item, ...]) -> None:
        self._rows = rows
        for cell, item in zip(self._cells, _flat(rows), strict=True):
            cell.item = item


class _Cell:
    """The present value of one drawn row, replaced as a whole, so a reader never sees a mixture of two."""

    def __init__(self, item: Item) -> None:
        self.item = item


def _backend(name: str) -> Backend:
    """Import the backend that pystray calls `name`; on any other system its libraries are missing."""
    if name == "win32":
        from tray.icon import windows

        return windows
    from tray.icon import linux

    return linux


def _flat(rows: tuple[Item, ...]) -> Iterator[Item]:
    """Every row that has a cell, in the order in which `_entry` makes them."""
    for row in rows:
        if row is not SEPARATOR:
            yield row
            yield from _flat(row.children)


def clipped(text: str, limit: int) -> str:
    """Return `text` in at most `limit` UTF-16 units, as Windows counts; a cut is marked by an ellipsis."""
    if len(text.encode("utf-16-le")) // 2 <= limit:
        return text
    while len(text.encode("utf-16-le")) // 2 >= limit:
        text = text[:-1]
    return f"{text}…"

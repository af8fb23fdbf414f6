"""Draws the menu and the icon with pystray; nothing else knows it, and it is imported only when there is a desktop.

pystray rebuilds its whole menu for every change: on Linux that closes a menu which is open and loses clicks, on
Windows it destroys the menu under the pointer. So each backend's icon is given another `_update_menu` here, which
is why pystray is pinned to one exact version.
"""

from __future__ import annotations

import html
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from PIL import Image

from engine.errors import PilotlightError
from tray.icon.picture import Flame, draw
from tray.menu.item import SEPARATOR, Command, Item, shape
from tray.notices import Notice

_log = logging.getLogger(__name__)

# Windows' own limits less the closing null; longer texts raise there, and no panel shows more.
LONGEST_TOOLTIP: Final = 127
LONGEST_BALLOON: Final = 255
LONGEST_BALLOON_TITLE: Final = 63


class TrayUnavailable(PilotlightError):
    """pystray cannot show an icon here."""

    title = "No tray icon"


class Renderer:
    """One tray icon: what `show` is given is what the person sees; made and run on the main thread."""

    def __init__(
        self, backend: str, on_click: Callable[[Command], None], rows: tuple[Item, ...], flame: Flame, tooltip: str
    ) -> None:
        """Take the first menu and icon; raises TrayUnavailable."""
        try:
            import pystray

            make = {"appindicator": _appindicator_icon, "win32": _windows_icon}[backend]
            icon_class = make(pystray)
        except Exception as error:
            _log.debug("pystray cannot start", exc_info=True)
            raise TrayUnavailable(f"The tray icon cannot be shown: {error}") from error
        self._pystray = pystray
        self._on_click = on_click
        self._write = _WRITE[backend]
        self._cells: list[_Cell] = []
        self._rows: tuple[Item, ...] = ()
        self._flame = flame
        self._tooltip = clipped(tooltip, LONGEST_TOOLTIP)
        self._stopping = False
        self._lock = threading.Lock()
        self._icon: Any = icon_class("pilotlight", draw(flame), self._tooltip, self._menu(rows))

    def run(self, on_ready: Callable[[], None]) -> None:
        """Show the icon until `stop`; calls `on_ready` once, on this thread, when the icon is up."""
        try:
            self._icon.run(lambda icon: self._set_up(on_ready))
        finally:
            self._icon.clean_up()

    def stop(self) -> None:
        """Take the icon away and let `run` return; from any thread, and at any time."""
        self._stopping = True
        self._icon.stop()

    def show(self, rows: tuple[Item, ...], flame: Flame, tooltip: str) -> None:
        """Show this from now on, and touch only what differs; from any thread."""
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
        """Show a balloon, or nothing where the desktop has no service for it; from any thread."""
        try:
            self._icon.notify(
                clipped(notice.message, LONGEST_BALLOON) or " ", clipped(notice.title, LONGEST_BALLOON_TITLE)
            )
        except OSError as error:
            _log.info("a notice could not be shown: %s", error)

    def _set_up(self, on_ready: Callable[[], None]) -> None:
        self._icon.visible = True
        self._icon.on_loop(on_ready)
        if self._stopping:  # stop() came before the loop was there to end
            self._icon.stop()

    def _menu(self, rows: tuple[Item, ...]) -> Any:
        """Make a pystray menu whose items read cells, so that `_fill` can change them where they stand."""
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
            lambda _: self._write(cell.item),
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
    """The present value of one drawn row; replaced as a whole, so a reader never sees half of it."""

    def __init__(self, item: Item) -> None:
        self.item = item


def _flat(rows: tuple[Item, ...]) -> Iterator[Item]:
    """Every row that has a cell, in the order in which `_entry` makes them."""
    for row in rows:
        if row is not SEPARATOR:
            yield row
            yield from _flat(row.children)


def _write_roomy(item: Item) -> str:
    return item.text.ljust(item.room, _EN_SPACE)


def _write_plain(item: Item) -> str:
    return item.text.replace("&", "&&")  # Windows underlines the letter after a single one


_EN_SPACE: Final = "\u2002"  # about as wide as a letter
_WRITE: Final = {"appindicator": _write_roomy, "win32": _write_plain}


def clipped(text: str, limit: int) -> str:
    """Return `text` in at most `limit` UTF-16 units, which is how Windows counts."""
    if len(text.encode("utf-16-le")) // 2 <= limit:
        return text
    while len(text.encode("utf-16-le")) // 2 >= limit:
        text = text[:-1]
    return f"{text}…"


def _appindicator_icon(pystray: Any) -> type[Any]:
    """The Linux icon: changes an open menu in place, and outlives a desktop without notifications."""
    from gi.repository import Gio, GLib
    from pystray._util.gtk import mainloop

    class LiveIcon(pystray.Icon):  # type: ignore[misc]  # pystray ships no types
        def __init__(self, *args: Any) -> None:
            self._pictures = tempfile.TemporaryDirectory(prefix="pilotlight-")  # a panel reads icons from files
            self._widgets: list[tuple[Any, Any]] = []
            self._drawn: Any = None
            self._filling = False
            super().__init__(*args)

        def on_loop(self, call: Callable[[], None]) -> None:
            GLib.idle_add(_once, call)

        def tick(self) -> None:
            pass

        def clean_up(self) -> None:
            self._pictures.cleanup()

        def _initialize(self) -> None:
            # pystray's own takes SIGINT from the application, and hangs on a broken notification service.
            self._mark_ready()

        def _finalize(self) -> None:
            del self._appindicator

        @mainloop  # type: ignore[untyped-decorator]  # as above
        def _update_menu(self) -> None:
            if self._drawn is self.menu:
                self._refill()
                return
            self._widgets = []
            self._menu_handle = self._create_menu(self.menu)
            self._drawn = self.menu
            self._appindicator.set_menu(self._menu_handle)

        def _create_menu_item(self, descriptor: Any) -> Any:
            widget = super()._create_menu_item(descriptor)
            if descriptor is not pystray.Menu.SEPARATOR:
                self._widgets.append((descriptor, widget))
            return widget

        def _refill(self) -> None:
            self._filling = True
            try:
                for descriptor, widget in self._widgets:
                    if widget.get_label() != descriptor.text:
                        # Through the child: told of the row's own label, libdbusmenu takes its "_" for a mnemonic.
                        widget.get_child().set_label(descriptor.text)
                    if widget.get_sensitive() != descriptor.enabled:
                        widget.set_sensitive(descriptor.enabled)
                    if descriptor.checked is not None and widget.get_active() != descriptor.checked:
                        widget.set_active(descriptor.checked)
            finally:
                self._filling = False

        def _handler(self, callback: Any) -> Any:
            inner = super()._handler(callback)

            def clicked(*args: Any, **kwargs: Any) -> None:
                if not self._filling:  # setting a check looks like a click to GTK
                    inner(*args, **kwargs)

            return clicked

        def _update_fs_icon(self) -> None:
            # One file for each picture: panels and notifications may read it later than we move on.
            path = Path(self._pictures.name, f"{_digest(self.icon)}.png")
            if not path.exists():
                self.icon.save(path)
            self._icon_path = str(path)
            self._icon_valid = True

        def _remove_fs_icon(self) -> None:
            self._icon_valid = False

        @mainloop  # type: ignore[untyped-decorator]  # as above
        def _notify(self, message: str, title: str | None = None) -> None:
            body = html.escape(message, quote=False)  # notification servers read markup in the body
            hints = {"desktop-entry": GLib.Variant("s", self.name)}
            call: Any = ("Pilotlight", 0, self._icon_path or "", title or self.title, body, [], hints, -1)
            try:
                Gio.bus_get_sync(Gio.BusType.SESSION, None).call(
                    "org.freedesktop.Notifications",
                    "/org/freedesktop/Notifications",
                    "org.freedesktop.Notifications",
                    "Notify",
                    GLib.Variant("(susssasa{sv}i)", call),
                    None,
                    Gio.DBusCallFlags.NONE,
                    5000,
                    None,
                    self._notified,
                )
            except GLib.Error as error:
                _log.info("a notice could not be shown: %s", error.message)

        def _notified(self, bus: Any, result: Any) -> None:
            try:
                bus.call_finish(result)
            except GLib.Error as error:
                _log.info("a notice could not be shown: %s", error.message)

        def _remove_notification(self) -> None:
            pass

    return LiveIcon


def _windows_icon(pystray: Any) -> type[Any]:
    """The Windows icon: makes the menu anew when it is about to open, and for either button."""
    from pystray._util import win32

    ready_message = win32.WM_USER + 100
    no_message = 0

    class FreshIcon(pystray.Icon):  # type: ignore[misc]  # pystray ships no types
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self._menu_handle: Any = None
            self._open = False
            self._calls: list[Callable[[], None]] = []
            self._message_handlers[ready_message] = self._run_calls

        def on_loop(self, call: Callable[[], None]) -> None:
            self._calls.append(call)
            win32.PostMessage(self._hwnd, ready_message, 0, 0)

        def tick(self) -> None:
            # Python runs a Ctrl-C handler on this thread only between two of its own instructions.
            if self._running:
                win32.PostMessage(self._hwnd, no_message, 0, 0)

        def clean_up(self) -> None:
            pass

        def _run_calls(self, wparam: int, lparam: int) -> None:
            while self._calls:
                _once(self._calls.pop(0))

        def _update_menu(self) -> None:
            pass  # made in _on_notify, on the thread that shows it

        def _on_notify(self, wparam: int, lparam: int) -> None:
            if lparam not in (win32.WM_LBUTTONUP, win32.WM_RBUTTONUP) or self._open:
                return
            self._open = True
            try:
                super()._update_menu()
                super()._on_notify(wparam, win32.WM_RBUTTONUP)
            finally:
                self._open = False

        def _show(self) -> None:
            try:
                super()._show()
            except OSError as error:  # at login the taskbar may come later; it then asks for the icon
                _log.info("the taskbar took no icon yet: %s", error)

    return FreshIcon


def _once(call: Callable[[], None]) -> bool:
    """Run `call` from a foreign main loop, which would swallow or repeat what it raises or returns."""
    try:
        call()
    except Exception:  # noqa: BLE001 - a worker's tick: the desktop's loop has nobody to raise to
        _log.exception("a call on the tray's loop failed")
    return False


def _digest(image: Image.Image) -> str:
    return f"{hash(image.tobytes()) & 0xFFFFFFFF:08x}-{image.width}"

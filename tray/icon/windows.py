"""The icon on Windows: pystray's backend for the notification area."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from tray.icon.backend import once
from tray.menu.item import Item

_log = logging.getLogger(__name__)


def icon_class(pystray: Any) -> type[Any]:
    """Return pystray's Windows icon, changed to build its menu when it opens, and to open it for either button."""
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
                once(self._calls.pop(0))

        def _update_menu(self) -> None:
            pass  # built in _on_notify, on the thread that shows it

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
            except OSError as error:  # at login the taskbar may start later; it then asks for the icon
                _log.info("the taskbar took no icon yet: %s", error)

    return FreshIcon


def written(item: Item) -> str:
    """Return the text of `item` with every `&` doubled, as Windows underlines the letter after a single one."""
    return item.text.replace("&", "&&")

"""The part of pystray that differs between desktops: one module per desktop, all with the functions of `Backend`.

pystray rebuilds its whole menu for every change: on Linux that closes an open menu and loses clicks, on Windows it
destroys the menu under the pointer. So each backend replaces the icon's `_update_menu`, a private method, and pystray
is pinned to one exact version.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from tray.menu.item import Item

_log = logging.getLogger(__name__)


class Backend(Protocol):
    """One desktop's icon; `tray/icon/linux.py` and `tray/icon/windows.py` are the two."""

    def icon_class(self, pystray: Any) -> type[Any]:
        """Return a subclass of `pystray.Icon` with three more methods.

        `on_loop(call)` runs `call` once on the thread of the icon's loop, `tick()` is called every second by another
        thread, and `clean_up()` is called once after the loop has ended. Raises whatever a desktop without the needed
        libraries raises.
        """
        ...

    def written(self, item: Item) -> str:
        """Return the text of `item` as this desktop's menu must be given it."""
        ...


def once(call: Callable[[], None]) -> bool:
    """Run `call` from a foreign main loop, which would swallow its error or repeat it; return False."""
    try:
        call()
    except Exception:  # noqa: BLE001 - a worker's tick: the desktop's loop has no caller to raise to
        _log.exception("a call on the tray's loop failed")
    return False

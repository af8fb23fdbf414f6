"""The icon on Linux: pystray's AppIndicator backend, over GTK and the session bus."""

from __future__ import annotations

import html
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from PIL import Image

from tray.icon.backend import once
from tray.menu.item import Item

_log = logging.getLogger(__name__)

_EN_SPACE: Final = "\u2002"  # about as wide as a letter


def icon_class(pystray: Any) -> type[Any]:
    """Return pystray's AppIndicator icon, changed to update an open menu in place and to need no notifications."""
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
            GLib.idle_add(once, call)

        def tick(self) -> None:
            pass

        def clean_up(self) -> None:
            self._pictures.cleanup()

        def _initialize(self) -> None:
            # pystray's own method takes SIGINT from the application, and hangs on a broken notification service.
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
                        # Through the child: from the row's own label, libdbusmenu takes a "_" for a mnemonic.
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
                if not self._filling:  # GTK reports a check that we set as a click
                    inner(*args, **kwargs)

            return clicked

        def _update_fs_icon(self) -> None:
            # One file per picture: a panel may read it after the next picture has replaced it.
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


def written(item: Item) -> str:
    """Return the text of `item`, padded to the width that its longer texts will need."""
    return item.text.ljust(item.room, _EN_SPACE)


def _digest(image: Image.Image) -> str:
    return f"{hash(image.tobytes()) & 0xFFFFFFFF:08x}-{image.width}"

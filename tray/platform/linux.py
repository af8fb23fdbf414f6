"""The Linux desktop: AppIndicator over the session bus, GTK's clipboard, GIO's default editor."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any, Final

from engine import PilotlightError

_log = logging.getLogger(__name__)

BACKEND: Final = "appindicator"
"""pystray's `gtk` shows icons only in XEmbed trays, and its `xorg` has no menu."""

PACKAGES: Final = "gir1.2-gtk-3.0 gir1.2-ayatanaappindicator3-0.1 adwaita-icon-theme librsvg2-common dbus"
"""The packages that the tray needs, as Debian and Ubuntu name them."""

_WATCHER: Final = "org.kde.StatusNotifierWatcher"
_INSTALL: Final = f"On Debian or Ubuntu: sudo apt-get install --no-install-recommends {PACKAGES}"
_CLIPBOARD_SECONDS: Final = 3.0
_BUS_MILLISECONDS: Final = 1000


def prepare() -> None:
    """Choose pystray's backend, before pystray is imported and reads the environment."""
    os.environ["PYSTRAY_BACKEND"] = BACKEND


def tray_problem() -> str | None:
    """Return why no icon can be shown here and the packages to install, or None."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "There is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)."
    if not _has_session_bus():
        return "There is no session bus (DBUS_SESSION_BUS_ADDRESS is not set), and tray icons need one."
    try:
        import gi
    except ImportError:
        return f"PyGObject is missing: pip install 'PyGObject>=3.50,<3.51', or python3-gi. {_INSTALL}"
    try:
        gi.require_version("Gtk", "3.0")
    except ValueError:
        return f"GTK 3 is missing. {_INSTALL}"
    if not (_has_typelib(gi, "AyatanaAppIndicator3") or _has_typelib(gi, "AppIndicator3")):
        return f"AppIndicator is missing. {_INSTALL}"
    from gi.repository import Gtk

    if not Gtk.init_check()[0]:
        return f"The display {os.environ.get('DISPLAY') or os.environ['WAYLAND_DISPLAY']} cannot be opened."
    return None


def host_missing() -> str | None:
    """Return in words that no panel shows icons yet, or None; a panel that starts later shows the icon too."""
    from gi.repository import Gio, GLib

    try:
        bus = Gio.bus_get_sync(Gio.BusType.SESSION, None)
        (owned,) = bus.call_sync(
            "org.freedesktop.DBus",
            "/org/freedesktop/DBus",
            "org.freedesktop.DBus",
            "NameHasOwner",
            GLib.Variant("(s)", (_WATCHER,)),
            GLib.VariantType("(b)"),
            Gio.DBusCallFlags.NONE,
            _BUS_MILLISECONDS,
            None,
        ).unpack()
    except GLib.Error as error:
        return f"The session bus does not answer: {error.message}"
    if owned:
        return None
    return (
        "No panel shows tray icons here yet; the icon appears as soon as one does. "
        "GNOME needs the extension AppIndicator and KStatusNotifierItem Support."
    )


def copy_text(text: str) -> None:
    """Put `text` on the clipboard, from any thread but GTK's, whose loop must run.

    Raises PilotlightError if GTK does not take it in time.
    """
    from gi.repository import Gdk, GLib, Gtk

    done = threading.Event()

    def copy() -> bool:
        clipboard = Gtk.Clipboard.get(Gdk.SELECTION_CLIPBOARD)
        clipboard.set_text(text, -1)
        clipboard.store()  # a clipboard manager, if there is one, keeps it after Pilotlight has ended
        done.set()
        return False

    GLib.idle_add(copy)
    if not done.wait(_CLIPBOARD_SECONDS):
        raise PilotlightError("The clipboard did not answer.", title="Not copied", next_step=f"The text is {text}")


def open_file(path: Path) -> None:
    """Open `path` in the desktop's text editor; raises PilotlightError if there is none."""
    from gi.repository import Gio, GLib

    kind, _uncertain = Gio.content_type_guess(str(path), None)
    editor = Gio.AppInfo.get_default_for_type(kind, False) or Gio.AppInfo.get_default_for_type("text/plain", False)
    if editor is None:
        raise PilotlightError("No text editor is set up.", title="Not opened", next_step=f"The file is {path}")
    context = Gio.AppLaunchContext()
    # What `engine/service/openmp.py` set for this process is no choice for the editor and the programs in its terminal.
    context.unsetenv("OMP_WAIT_POLICY")
    try:
        editor.launch([Gio.File.new_for_path(str(path))], context)
    except GLib.Error as error:
        raise PilotlightError(error.message, title="Not opened", next_step=f"The file is {path}") from error


def _has_session_bus() -> bool:
    if os.environ.get("DBUS_SESSION_BUS_ADDRESS"):
        return True
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return bool(runtime) and Path(str(runtime), "bus").exists()


def _has_typelib(gi: Any, name: str) -> bool:
    try:
        gi.require_version(name, "0.1")
    except ValueError:
        return False
    return True

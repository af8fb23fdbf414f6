"""A private desktop: a display, a session bus and, on request, a window manager and a real panel.

Nothing of it is shared with the desktop that the tests run on, and nothing of it is left behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

from PIL import Image, ImageChops, ImageGrab

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TOOLS = {"Xvfb": "xvfb", "dbus-daemon": "dbus", "xdotool": "xdotool", "xfwm4": "xfwm4", "xfce4-panel": "xfce4-panel"}
"""The programs that the desktop tests run, and the Debian package of each."""

PANEL_HEIGHT = 32
"""Pixels, as xfce4-panel.xml says."""

T = TypeVar("T")


class MissingTools(RuntimeError):
    """The desktop cannot be built here; the message is the line to install."""


def require_tools() -> None:
    """Raise MissingTools with the line to run, unless everything is there."""
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if missing:
        raise MissingTools(f"Install first: sudo apt-get install --no-install-recommends {' '.join(missing)}")


def until(question: Callable[[], T], what: str, timeout: float = 15.0) -> T:
    """Return the first true answer to `question`; fails with the words `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (answer := question()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s for {what}")
        time.sleep(0.05)
    return answer


def artifacts() -> Path:
    """Return the folder for pictures of a test run: tests/artifacts, or $PILOTLIGHT_ARTIFACTS."""
    folder = Path(os.environ.get("PILOTLIGHT_ARTIFACTS") or ROOT / "tests" / "artifacts")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Desktop:
    """A private desktop while its `with` lasts."""

    def __init__(self, *, panel: bool, size: tuple[int, int] = (1000, 700), scale: int = 1) -> None:
        self._panel = panel
        self._size = size
        self.scale = scale
        self._running: list[subprocess.Popen[Any]] = []
        self._logs: list[IO[bytes]] = []
        self.env: dict[str, str] = {}

    def __enter__(self) -> Desktop:
        require_tools()
        self._folder = tempfile.TemporaryDirectory(prefix="desktop-", ignore_cleanup_errors=True)
        self.home = Path(self._folder.name)
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> None:
        self.env = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "HOME": str(self.home),
            "TMPDIR": str(self._made("tmp")),
            "XDG_CONFIG_HOME": str(self._made("config")),
            "XDG_STATE_HOME": str(self._made("state")),
            "XDG_CACHE_HOME": str(self._made("cache")),
            "XDG_DATA_HOME": str(self._made("data")),
            "XDG_RUNTIME_DIR": str(self._made("runtime")),
            "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={self.home}/no-bus",  # no real computer's sleep is delayed
            "NO_AT_BRIDGE": "1",
            "GIO_USE_VFS": "local",
            "GSETTINGS_BACKEND": "memory",
            "GDK_BACKEND": "x11",
            "GDK_SCALE": str(self.scale),
        }
        (self.home / "runtime").chmod(0o700)
        self.env["DISPLAY"] = f":{self._start_display()}"
        self.env["DBUS_SESSION_BUS_ADDRESS"] = self._start_bus()
        if self._panel:
            channel = self._made("config/xfce4/xfconf/xfce-perchannel-xml")
            shutil.copy(HERE / "xfce4-panel.xml", channel)
            self.start("xfwm4", "--compositor=off")
            self.start("xfce4-panel", "--disable-wm-check")

    def _made(self, name: str) -> Path:
        folder = self.home / name
        folder.mkdir(parents=True)
        return folder

    def _start_display(self) -> str:
        width, height = self._size
        reading, writing = os.pipe()
        try:
            self.start(
                *("Xvfb", "-displayfd", str(writing), "-screen", "0", f"{width}x{height}x24", "-nolisten", "tcp"),
                pass_fds=(writing,),
            )
        finally:
            os.close(writing)
        with os.fdopen(reading) as answer:
            number = answer.readline().strip()
        if not number:
            raise AssertionError(f"Xvfb did not start: {self.log('Xvfb')}")
        return number

    def _start_bus(self) -> str:
        config = ["--session"] if self._panel else [f"--config-file={HERE / 'bus.conf'}"]
        reading, writing = os.pipe()
        try:
            self.start(
                "dbus-daemon", *config, "--nofork", "--nopidfile", f"--print-address={writing}", pass_fds=(writing,)
            )
        finally:
            os.close(writing)
        with os.fdopen(reading) as answer:
            return answer.readline().strip()

    def start(self, *command: str, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[Any]:
        """Start a program on this desktop; its output goes to `log(name)`, and it ends with the desktop."""
        log = (self.home / f"{Path(command[0]).name}.log").open("ab")
        self._logs.append(log)
        process = subprocess.Popen(
            command,
            env=self.env,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # so that its children can be ended with it
            pass_fds=pass_fds,
        )
        self._running.append(process)
        return process

    def run(self, *command: str, timeout: float = 10.0) -> str:
        """Run a short program on this desktop and return what it prints."""
        done = subprocess.run(
            command, env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=True
        )
        return done.stdout

    def log(self, name: str) -> str:
        """Return what the program `name` has printed so far."""
        return (self.home / f"{name}.log").read_text(errors="replace")

    def screenshot(self) -> Image.Image:
        """Return the whole screen as RGB."""
        return ImageGrab.grab(xdisplay=self.env["DISPLAY"]).convert("RGB")

    def paint(self, colour: tuple[int, int, int]) -> None:
        """Give the bare screen a colour."""
        from Xlib.display import Display

        display = Display(self.env["DISPLAY"])
        root = display.screen().root
        red, green, blue = colour
        root.change_attributes(background_pixel=red << 16 | green << 8 | blue)
        root.clear_area()
        display.sync()
        display.close()

    def point(self, x: int, y: int) -> None:
        """Move the pointer there, and give the panel time to react."""
        self.run("xdotool", "mousemove", str(x), str(y), "sleep", "0.4")

    def click(self, x: int, y: int) -> None:
        """Click the left button there."""
        self.run("xdotool", "mousemove", str(x), str(y), "sleep", "0.4", "click", "1")

    def close(self) -> None:
        """End everything that was started here, last first."""
        for process in reversed(self._running):
            _end(process)
        for log in self._logs:
            log.close()
        self._folder.cleanup()


def _end(process: subprocess.Popen[Any]) -> None:
    for number, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    process.wait(3.0)


def place_of(colour: tuple[int, int, int], picture: Image.Image, near: int = 30) -> tuple[int, int] | None:
    """Return the middle of the pixels of about this colour, or None if there are fewer than six."""
    bands = [
        band.point(lambda level, want=want: 255 if abs(level - want) <= near else 0)
        for band, want in zip(picture.split(), colour, strict=True)
    ]
    mask = _all(bands)
    if mask.histogram()[255] < 6 or (box := mask.getbbox()) is None:
        return None
    return (box[0] + box[2]) // 2, (box[1] + box[3]) // 2


class OpenMenu:
    """A menu on the screen: its box and the places of its rows."""

    def __init__(self, box: tuple[int, int, int, int], screen: Image.Image) -> None:
        self.box = box
        self.screen = screen
        self.picture = screen.crop(box)
        self.rows = [box[1] + y for y in text_rows(self.picture)]

    def still_open(self, desktop: Desktop) -> bool:
        """Return whether the menu and all its rows are still in their places."""
        rows = [self.box[1] + y for y in text_rows(desktop.screenshot().crop(self.box))]
        # Other words have other ascenders, which moves a line's middle a little.
        return len(rows) == len(self.rows) and all(abs(a - b) <= 4 for a, b in zip(rows, self.rows, strict=True))

    def click(self, desktop: Desktop, labels: list[str], start: str) -> None:
        """Click the row whose label starts with `start`; `labels` are those of this menu."""
        desktop.click(self._middle(), self._row(labels, start))

    def open_submenu(self, desktop: Desktop, labels: list[str], start: str) -> OpenMenu:
        """Click a row that opens a submenu, and return the submenu."""
        left, top, right, bottom = self.box

        def beside() -> tuple[int, int, int, int] | None:
            here = (left - 1, top - 1, right + 1, bottom + 1)
            panel = (0, bottom, self.screen.width, self.screen.height)  # its clock may move on
            box = _changed(self.screen, desktop.screenshot(), here, panel)
            return box if box is not None and box[3] - box[1] > 60 else None

        desktop.click(self._middle(), self._row(labels, start))
        return _settled(desktop, beside, "the submenu to open")

    def _middle(self) -> int:
        return (self.box[0] + self.box[2]) // 2

    def _row(self, labels: list[str], start: str) -> int:
        return self.rows[next(at for at, label in enumerate(labels) if label.startswith(start))]


def open_menu(desktop: Desktop, icon: tuple[int, int]) -> OpenMenu:
    """Click the icon and return the menu that opens above the panel."""
    desktop.point(20, 20)
    before = desktop.screenshot()
    panel_top = icon[1] - PANEL_HEIGHT * desktop.scale // 2 - 2  # the panel's own pixels change with its clock

    def above() -> tuple[int, int, int, int] | None:
        everything = (0, panel_top, before.width, before.height)
        box = _changed(before, desktop.screenshot(), everything)
        return box if box is not None and box[3] - box[1] > 100 else None

    desktop.click(*icon)
    left, top, right, _bottom = until(above, "the menu to open")
    desktop.point((left + right) // 2, top + 3)  # else the icon's tooltip covers the last rows
    return _settled(desktop, above, "the menu to stay open")


def _settled(desktop: Desktop, find: Callable[[], tuple[int, int, int, int] | None], what: str) -> OpenMenu:
    until(find, what)
    time.sleep(0.3)  # it may still be fading in or growing
    box = find()
    assert box is not None, f"{what}: it closed again"
    return OpenMenu(box, desktop.screenshot())


def _changed(
    before: Image.Image, after: Image.Image, *hidden: tuple[int, int, int, int]
) -> tuple[int, int, int, int] | None:
    """Return the box of all differences outside `hidden`."""
    difference = ImageChops.difference(before, after).convert("L")
    for box in hidden:
        difference.paste(0, box)
    return difference.getbbox()


def text_rows(menu: Image.Image) -> list[int]:
    """Return the vertical middle of every line of text in a picture of a menu, from top to bottom."""
    grey = menu.convert("L")
    # Text starts after the column of checks, so a check or a separator's line is no row of its own.
    inner = grey.crop((int(grey.width * 0.1), 2, int(grey.width * 0.9), grey.height - 2))
    rows, start = [], None
    for y in range(inner.height + 1):
        low, high = inner.crop((0, y, inner.width, y + 1)).getextrema() if y < inner.height else (0, 0)
        inked = y < inner.height and int(high) - int(low) > 40  # type: ignore[arg-type]
        if inked and start is None:
            start = y
        elif not inked and start is not None:
            if y - start >= 6:
                rows.append((start + y) // 2 + 2)
            start = None
    return rows


def _all(masks: list[Image.Image]) -> Image.Image:
    result = masks[0]
    for mask in masks[1:]:
        result = ImageChops.darker(result, mask)
    return result

"""The Windows desktop: the notification area, the clipboard and the shell's default editor."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from pathlib import Path
from typing import Any, Final

from engine import PilotlightError

BACKEND: Final = "win32"

_CF_UNICODETEXT: Final = 13
_GMEM_MOVEABLE: Final = 2
_TRIES: Final = 10  # another program may hold the clipboard for a moment
_PAUSE_SECONDS: Final = 0.05


def prepare() -> None:
    """Choose pystray's backend, before pystray is imported and reads the environment."""
    os.environ["PYSTRAY_BACKEND"] = BACKEND


def tray_problem() -> str | None:
    """Return None, as every Windows desktop has a notification area."""
    return None


def host_missing() -> str | None:
    """Return None, as a taskbar that starts later asks for the icon."""
    return None


def copy_text(text: str) -> None:
    """Put `text` on the clipboard, from any thread; raises PilotlightError if another program holds it."""
    user32, kernel32 = _libraries()
    for _ in range(_TRIES):
        if user32.OpenClipboard(None):
            break
        time.sleep(_PAUSE_SECONDS)
    else:
        raise PilotlightError("Another program holds the clipboard.", title="Not copied", next_step="Try again.")
    try:
        user32.EmptyClipboard()
        data = text.encode("utf-16-le") + b"\0\0"
        handle = kernel32.GlobalAlloc(_GMEM_MOVEABLE, len(data))
        ctypes.memmove(kernel32.GlobalLock(handle), data, len(data))
        kernel32.GlobalUnlock(handle)
        if not user32.SetClipboardData(_CF_UNICODETEXT, handle):  # on success the system owns the memory
            kernel32.GlobalFree(handle)
            raise PilotlightError("Windows refused the text.", title="Not copied", next_step=f"The text is {text}")
    finally:
        user32.CloseClipboard()


def open_file(path: Path) -> None:
    """Open `path` in the program for its type, else in Notepad; raises PilotlightError if neither starts."""
    try:
        _startfile(path)
    except OSError:
        try:
            subprocess.Popen([str(Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "notepad.exe")), str(path)])  # noqa: S603 - Windows' own editor on our own file
        except OSError as error:
            raise PilotlightError(str(error), title="Not opened", next_step=f"The file is {path}") from error


def _startfile(path: Path) -> None:
    start: Any = getattr(os, "startfile")  # noqa: B009 - exists on Windows only, and mypy checks for Linux too
    start(path)


def _libraries() -> tuple[Any, Any]:
    """Return user32 and kernel32 with the handle types that 64 bits need."""
    windll: Any = getattr(ctypes, "WinDLL")  # noqa: B009 - as above
    user32, kernel32 = windll("user32", use_last_error=True), windll("kernel32", use_last_error=True)
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    user32.OpenClipboard.argtypes = [pointer]
    user32.SetClipboardData.argtypes, user32.SetClipboardData.restype = [ctypes.c_uint, pointer], pointer
    kernel32.GlobalAlloc.argtypes, kernel32.GlobalAlloc.restype = [ctypes.c_uint, size], pointer
    kernel32.GlobalLock.argtypes, kernel32.GlobalLock.restype = [pointer], pointer
    kernel32.GlobalUnlock.argtypes = [pointer]
    kernel32.GlobalFree.argtypes = [pointer]
    return user32, kernel32

"""What must be installed for a kind of encoder, and the line that installs it."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from typing import Final

from engine.errors import Unavailable
from engine.paths import is_frozen

_NAMES: Final = {"PIL": "pillow", "open_clip": "open-clip-torch", "spacy": "spaCy"}
"""Import name -> what pip calls it, where that is not the import name with hyphens."""


def require(*imports: str) -> None:
    """Raise Unavailable for the first package that is not there, by the names that are imported; imports nothing."""
    for name in imports:
        if not _is_there(name):
            package = _NAMES.get(name, name.replace("_", "-"))
            raise missing(package, f"The package {package} is not installed.")


def missing(package: str, message: str) -> Unavailable:
    """Return the error that says `message`, and how to install `package`."""
    if packaged():
        return Unavailable(
            f"This build of Pilotlight comes without {package}, and nothing can be added to it.",
            next_step=f"Install Pilotlight with Python's pip instead, and {package} beside it.",
        )
    return Unavailable(message, next_step=f"Run: {command('pip', 'install', package.lower())}")


def packaged() -> bool:
    """Return whether this is an app with a Python of its own, into which nothing can be installed."""
    return is_frozen()


def command(module: str, *arguments: str) -> str:
    """Return the line that runs a module in this Python, whichever is active in the terminal it is pasted into."""
    python = sys.executable or "python"
    # Windows' own for programs without a terminal prints nothing there.
    python = python.replace("pythonw.exe", "python.exe")
    # Double quotes, because Windows' command line knows no others.
    shown = f'"{python}"' if any(mark in python for mark in " ()&'") else python
    return " ".join((shown, "-m", module, *arguments))


def _is_there(name: str) -> bool:
    if find_spec(name) is not None:
        return True
    # Installed while we run, perhaps: that is what the error asks for.
    importlib.invalidate_caches()
    return find_spec(name) is not None

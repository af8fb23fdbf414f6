"""The packages that a kind of encoder needs, and the command that installs a missing one."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from typing import Final

from engine.errors import Unavailable
from engine.paths import is_frozen

_NAMES: Final = {
    "PIL": "pillow",
    "cv2": "opencv-python",
    "google": "protobuf",
    "natto": "natto-py",
    "open_clip": "open-clip-torch",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "spacy": "spaCy",
    "spacy_pkuseg": "spacy-pkuseg",
    "yaml": "pyyaml",
}
"""Import name -> name for pip, if that is not the import name with hyphens."""


def require(*imports: str) -> None:
    """Raise Unavailable for the first of these packages, by import name, that is not installed; imports nothing."""
    for name in imports:
        if not _is_there(name):
            package = name_for_pip(name)
            raise missing(package, f"The package {package} is not installed.")


def name_for_pip(name: str) -> str:
    """Return pip's name of the package that is imported as `name`."""
    return _NAMES.get(name, name.replace("_", "-"))


def forget_missing() -> None:
    """Let this process see packages that were installed since it looked for them, as the errors say to do."""
    importlib.invalidate_caches()
    transformers = sys.modules.get("transformers")
    if transformers is None:
        return
    # It asks once per process which optional packages there are, and keeps a stand-in for each class that lacks one.
    for look in vars(sys.modules["transformers.utils.import_utils"]).values():
        if callable(clear := getattr(look, "cache_clear", None)):
            clear()
    for name, value in list(vars(transformers).items()):
        if isinstance(value, type) and "is_dummy" in vars(type(value)):
            delattr(transformers, name)


def missing(package: str, message: str) -> Unavailable:
    """Return an error with `message` whose next step installs `package`."""
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
    """Return the command that runs a module in this Python, whatever Python is active in the user's terminal."""
    python = sys.executable or "python"
    # pythonw.exe, for programs without a terminal, prints nothing in one.
    python = python.replace("pythonw.exe", "python.exe")
    # Double quotes, because Windows' command line accepts no others.
    shown = f'"{python}"' if any(mark in python for mark in " ()&'") else python
    return " ".join((shown, "-m", module, *arguments))


def _is_there(name: str) -> bool:
    if find_spec(name) is not None:
        return True
    # The user may have installed it meanwhile, as the error says.
    importlib.invalidate_caches()
    return find_spec(name) is not None

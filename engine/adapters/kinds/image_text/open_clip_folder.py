"""open_clip's architectures and its layout of a folder, read without importing the library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from engine.errors import Unavailable

_CONFIGURATION: Final = "open_clip_config.json"


def check_architecture(name: str, package: Sequence[str]) -> None:
    """Raise Unavailable unless open_clip, whose folders are `package`, has an architecture of that name."""
    files = [file for place in package for file in (Path(place) / "model_configs").glob("*.json")]
    if files and name not in {file.stem for file in files}:
        alike = sorted(file.stem for file in files if file.stem.lower().startswith(name.lower()[:4]))
        raise Unavailable(
            f"open_clip has no architecture {name}.",
            next_step=f"Choose one of: {', '.join(alike)}." if alike else "open_clip.list_models() lists them.",
        )


def only_open_clip_reads(folder: Path) -> bool:
    """Return whether the model in `folder` is in open_clip's layout; a repository may hold it in both."""
    return (folder / _CONFIGURATION).is_file() and not (folder / "config.json").is_file()


def configuration(folder: Path) -> dict[str, Any] | None:
    """Return open_clip's own description of the model in `folder`, None if the model is not in its layout.

    Raises Unavailable for one that cannot be read.
    """
    file = folder / _CONFIGURATION
    if not file.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(found["model_cfg"]["vision_cfg"], dict) and isinstance(found["model_cfg"]["text_cfg"], dict):
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise Unavailable(f"{file} does not describe a model of open_clip.", next_step="Put the original file there.")

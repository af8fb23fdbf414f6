"""The small JSON files of a model's folder, which may be missing or damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def value_of(path: Path) -> Any:
    """Return the value in the file; None if there is no such file or it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None


def object_of(path: Path) -> dict[str, Any] | None:
    """Return the object in the file; None for any other value, and if there is none."""
    value = value_of(path)
    return value if isinstance(value, dict) else None

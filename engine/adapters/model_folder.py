"""What a model's folder holds: weights, and how its parts are put together."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Final

_NO_WEIGHTS: Final = ("training_args.bin", "optimizer.bin", "scheduler.bin")


def weight_files(folder: Path) -> list[Path]:
    """Return the files that may hold weights of the model in `folder`, safetensors and pickled ones.

    Which of them a library reads is its own affair. Looked at are the folder itself and those of its modules; not its
    other subfolders, where training leaves checkpoints and exporters leave other formats.
    """
    places = [folder]
    for module in module_folders(folder):
        places += [folder / module, *(sub for sub in sorted((folder / module).rglob("*")) if sub.is_dir())]
    found = []
    for place in places:
        found += [*sorted(place.glob("*.safetensors")), *sorted(place.glob("*.bin"))]
    return [file for file in found if file.is_file() and file.name not in _NO_WEIGHTS]


def module_folders(folder: Path) -> list[str]:
    """Return the subfolders that `modules.json` (sentence-transformers) names; none where there is no such file."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        return [str(module["path"]) for module in modules if module["path"]]
    return []


def configuration(folder: Path) -> str:
    """Return a digest of the files that say how the model is put together; it changes when one of them does."""
    digest = hashlib.sha256()
    for place in ("", *module_folders(folder)):
        for file in sorted((folder / place).glob("*config*.json")):
            digest.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes())
    with contextlib.suppress(OSError):
        digest.update((folder / "modules.json").read_bytes())
    return digest.hexdigest()

"""A look at the top of the folder that `model` names: a model, or a folder with models further down."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from engine.adapters.sources.model_folder import module_folders
from engine.adapters.sources.weight_names import MAIN, OF_OTHERS, is_weights
from engine.errors import Unavailable

_DESCRIBED: Final = (
    "config.json", "modules.json", "config_sentence_transformers.json", "open_clip_config.json", "adapter_config.json",
    "router_config.json", "config.cfg",
)  # fmt: skip
"""Files at the top of a model; the last one is that of spaCy's pipelines."""
_OF_TOKENIZERS: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "preprocessor_config.json",
)
"""A module of another model that has none of them is no model by itself."""
_PIPELINE: Final = "meta.json"
"""At the top of a pipeline, and of the package that holds one in a folder of its own."""
_WHOLE: Final = (*MAIN, "modules.json", "config.cfg")
"""One more file is in every model, but not in the folder of a module."""
_CACHED: Final = "models--"
"""How the names of a model's folder in a hub's cache begin; its files are in snapshots/COMMIT."""
_SNAPSHOTS: Final = "snapshots"
_BESIDE: Final = (_SNAPSHOTS, "blobs", "refs")
_MOST: Final = 200
"""Subfolders that are looked at; a home folder or a system's has hundreds of thousands of files further down."""
_SHOWN: Final = 3


def require_model(folder: Path) -> None:
    """Raise Unavailable if `folder` is no model, with the folder to write instead where there is one.

    Lists the folder, and of a hub's cache a few more. An empty folder and one with weights alone pass.
    """
    try:
        with os.scandir(folder) as entries:
            names = {entry.name for entry in entries}
    except OSError as error:
        raise Unavailable(
            f"The folder {folder} cannot be read: {error.strerror or error}.",
            next_step="Let this user read it, or mend `model` in the settings.",
        ) from error
    if names.isdisjoint(_OF_TOKENIZERS) and folder.name in module_folders(folder.parent):
        raise Unavailable(
            f"{folder} is one module of the model in {folder.parent}.", next_step=f'Set `model` to "{folder.parent}".'
        )
    if not names or not names.isdisjoint(_DESCRIBED):
        return
    if any(is_weights(name) or name.endswith(OF_OTHERS) for name in names) and _SNAPSHOTS not in names:
        return
    inside = list(islice(_models_in(folder, names), _SHOWN))
    if not inside and _PIPELINE in names:
        return
    if inside:
        choices = " or ".join(f'"{model}"' for model in inside)
        raise Unavailable(
            f"{folder} is no model: it holds models in folders of their own.", next_step=f"Set `model` to {choices}."
        )
    raise Unavailable(
        f"{folder} is no model: it has no config.json, nor weights.",
        next_step="Set `model` to the folder that holds the model's files.",
    )


def _models_in(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    """The models below, those of a hub's cache first."""
    if folder.name in _BESIDE:
        yield from _snapshot(folder.parent)
    if folder.name == _SNAPSHOTS:
        return
    if _SNAPSHOTS in names:
        yield from _snapshot(folder)
    caches = [folder] if "hub" not in names else [folder, folder / "hub"]
    for cache in caches:
        for cached in sorted(_subfolders(cache, _CACHED)):
            yield from _snapshot(cached)
    for one in sorted(islice(_subfolders(folder), _MOST)):
        if all(any(os.path.isfile(one / name) for name in some) for some in (_DESCRIBED, _WHOLE)):  # noqa: PTH113 - no errors
            yield one


def _snapshot(cached: Path) -> Iterator[Path]:
    """The snapshot of a model's folder in a hub's cache: that of the default branch, else the last one written."""
    snapshots = cached / _SNAPSHOTS
    try:
        commit = (cached / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        commit = ""
    if commit and os.path.isdir(snapshots / commit):  # noqa: PTH112 - no errors
        yield snapshots / commit
        return
    found = [(one.stat().st_mtime, one) for one in _subfolders(snapshots)]
    if found:
        yield max(found)[1]


def _subfolders(place: Path, begin: str = "") -> Iterator[Path]:
    try:
        with os.scandir(place) as entries:
            found = [entry for entry in entries if entry.name.startswith(begin) and not entry.name.startswith(".")]
    except OSError:
        return
    for entry in found:
        try:
            there = entry.is_dir()
        except OSError:
            continue
        if there:
            yield Path(entry.path)

"""The source of a model: a folder on this computer, or an id on the hub."""

from __future__ import annotations

import os.path
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from engine.adapters.packages import missing
from engine.adapters.sources.folder_of_models import require_model
from engine.errors import Unavailable, first_line
from engine.settings import references
from engine.settings.references import Builtin


@dataclass(frozen=True, slots=True)
class Reference:
    """The place that a model is read from; no hub is asked for one that is `local`."""

    source: str
    """A folder, or a hub id."""
    local: bool
    revision: str | None = None
    """The requested branch, tag or commit of a hub id, None for the default; the version of a built-in model."""
    open_clip: bool = False
    """Whether open_clip will read it: a repository may hold a model in its layout and in that of transformers."""


def locate(model: str) -> Reference:
    """Return the place that `model` is read from; imports nothing and asks no network.

    Raises Unavailable when a folder or the package of a built-in model is missing, and for a folder that is no model.
    """
    if (builtin := references.builtin(model)) is not None:
        return _locate_builtin(builtin)
    if not references.is_path(model):
        name, _, revision = model.partition("@")
        return Reference(name, local=False, revision=revision or None)
    return Reference(str(_locate_folder(model)), local=True)


def _locate_folder(model: str) -> Path:
    try:
        folder = Path(model).expanduser()
    except RuntimeError as error:
        raise Unavailable(
            f'There is no home folder for "{model}": {first_line(error)}',
            next_step='Write "~/" for your own home folder, or the whole path.',
        ) from error
    if os.path.isfile(folder):  # noqa: PTH113 - a path that no system takes is no file, and no error
        raise Unavailable(
            f"{folder} is a file; a model is a folder with its weights, configuration and tokenizer.",
            next_step="Set `model` to the folder that the file lies in.",
        )
    if not os.path.isdir(folder):  # noqa: PTH112 - as above
        raise Unavailable(
            f"The folder {folder} does not exist.", next_step="Put the model there or mend `model` in the settings."
        )
    require_model(folder)
    return folder


def _locate_builtin(builtin: Builtin) -> Reference:
    spec = find_spec(builtin.package)
    for place in (spec and spec.submodule_search_locations) or ():
        folder = Path(place) / builtin.folder
        if folder.is_dir():
            return Reference(str(folder), local=True, revision=metadata.version(builtin.distribution))
    raise missing(
        builtin.distribution, f"The package {builtin.distribution}, which carries the model, is not installed."
    )

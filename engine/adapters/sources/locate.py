"""The source of a model: a folder on this computer, or an id on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from engine.adapters.packages import missing
from engine.errors import Unavailable
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

    Raises Unavailable when a folder or the package of a built-in model is missing.
    """
    if (builtin := references.builtin(model)) is not None:
        return _locate_builtin(builtin)
    if not references.is_path(model):
        name, _, revision = model.partition("@")
        return Reference(name, local=False, revision=revision or None)
    folder = Path(model).expanduser()
    if folder.is_file():
        raise Unavailable(
            f"{folder} is a file; a model is a folder with its weights, configuration and tokenizer.",
            next_step="Set `model` to the folder that the file lies in.",
        )
    if not folder.is_dir():
        raise Unavailable(
            f"The folder {folder} does not exist.", next_step="Put the model there or mend `model` in the settings."
        )
    return Reference(str(folder), local=True)


def _locate_builtin(builtin: Builtin) -> Reference:
    spec = find_spec(builtin.package)
    for place in (spec and spec.submodule_search_locations) or ():
        folder = Path(place) / builtin.folder
        if folder.is_dir():
            return Reference(str(folder), local=True, revision=metadata.version(builtin.distribution))
    raise missing(
        builtin.distribution, f"The package {builtin.distribution}, which carries the model, is not installed."
    )

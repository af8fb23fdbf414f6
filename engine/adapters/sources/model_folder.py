"""The contents of a model's folder: the files that its library reads, and no others that happen to be there.

Beside them may be weights of other libraries and precisions, leftovers of an earlier version, notes and damaged files.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path, PurePosixPath
from typing import Final

from engine.adapters.sources import weight_names
from engine.adapters.sources.json_file import object_of, value_of
from engine.adapters.sources.weight_names import SAFE
from engine.errors import LoadFailed

MODULES: Final = "modules.json"
ROUTER: Final = "router_config.json"
"""The file in which a router of sentence-transformers lists its subfolders with modules."""

_DESCRIBES: Final = re.compile(
    # The structure: transformers, sentence-transformers, open_clip.
    r"((open_clip|adapter|router|sentence_\w+|cnn|lstm|wordembedding)_)?config\.json|modules\.json"
    r"|config_sentence_transformers\.json"
    # Tokenizers and vocabularies.
    r"|(whitespace|phrase)tokenizer_config\.json|tokenizer(_config)?\.json|special_tokens_map\.json|added_tokens\.json"
    r"|(\w+[_-])?vocab([_-]\w+)?\.(json|txt|bpe)|merges\.txt|bpe\.codes|dict\.txt|idf\.json|tekken\.json"
    r"|word_(shape|pronunciation)\.json|normalizer\.json|.+\.(model|spm|tiktoken)"
    # Images and templates, and code of the model's own.
    r"|((video_)?pre)?processor_config\.json|audio_tokenizer_config\.json|chat_template\.json|.+\.(jinja|py)",
    re.DOTALL,
)
"""Names of the files without weights that answers depend on."""
_TEMPLATES: Final = "additional_chat_templates"

AGAIN: Final = "Download or copy the model again."

NamesIn = Callable[[str], Collection[str]]
"""Returns the names of the files in one folder of a model, which is given relative to it; "" is its own."""


def weight_files(folder: Path, *, open_clip: bool = False, heads: bool = True) -> list[Path]:
    """Return the files that the weights of the model in `folder` are read from: `weight_paths`, on this computer.

    Raises LoadFailed for an index that is none, and OSError.
    """
    found = weight_paths(folder, lambda place: files_in(folder / place), open_clip=open_clip, heads=heads)
    return [folder / path for path in found]


def weight_paths(folder: Path, names_in: NamesIn, *, open_clip: bool = False, heads: bool = True) -> list[str]:
    """Return the paths of the files with weights of a model whose files `names_in` lists: main ones, modules, heads.

    `folder` holds at least the files that describe the model; `open_clip` says that this library will read it, as it
    will where nothing is described for another. Raises LoadFailed for an index that is none.
    """
    found: list[str] = []
    named = module_paths(folder)
    for place in dict.fromkeys(("", *named)):
        names = names_in(place)
        own = not place
        described = "config.json" in names
        if own and named and "" not in named and not (described or "open_clip_config.json" in names):
            continue  # all of its modules have folders of their own
        main = _named_by_configuration(folder) if own and described else None
        if main is None or main not in names:
            theirs = own and (open_clip or not (described or named))
            read = weight_names.main_names(names, _shards(folder / place, names), open_clip=theirs)
        else:
            read = sorted(_shards(folder, names)(main)) if main.endswith(".json") else [main]
        if own and heads:
            read = [*read, *weight_names.head_names(names)]
        found += [_join(place, name) for name in read]
    return found


def small_files(folder: Path) -> list[Path]:
    """Return the files without weights that the model's answers depend on; raises OSError."""
    found = []
    for place in dict.fromkeys(("", *module_paths(folder), _TEMPLATES)):
        found += [folder / place / name for name in files_in(folder / place) if _DESCRIBES.fullmatch(name)]
    return found


def module_folders(folder: Path) -> list[str]:
    """Return the subfolders of sentence-transformers' modules: those of `modules.json`, and of routers among them."""
    return [path for path in module_paths(folder) if path]


def files_in(place: Path) -> list[str]:
    """Return the names of the files in a folder, sorted; raises OSError for one that is there and cannot be read."""
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(place) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # a link that leads nowhere, or to a folder that must not be read
                if entry.is_file():
                    found.append(entry.name)
    return sorted(found)


def module_paths(folder: Path) -> list[str]:
    """The folders of the modules in their order, "" for one in the model's own folder."""
    modules = value_of(folder / MODULES)
    entries = modules if isinstance(modules, list) else []
    found = _inside(entry.get("path") for entry in entries if isinstance(entry, dict))
    for place in ("", *found):
        routes = object_of(folder / place / ROUTER)
        if routes is None and place:
            routes = object_of(folder / place / "config.json")  # as older versions of the library wrote it
        types = (routes or {}).get("types")
        found += _inside(_join(place, way) for way in types) if isinstance(types, dict) else []
    return found


def _inside(paths: Iterable[object]) -> list[str]:
    found = []
    for path in paths:
        if path == "" or weight_names.are_inside([path]):
            found.append("" if path in ("", ".") else PurePosixPath(str(path)).as_posix())
    return found


def _shards(place: Path, names: Collection[str]) -> weight_names.Shards:
    """The reader of the indexes in `place`, the folder with these `names`; raises LoadFailed for one that is none."""

    def read(index: str) -> Collection[str]:
        file = place / index
        if not file.is_file():  # a hub's, not fetched yet
            stem, _, ending = index.removesuffix(".index.json").rpartition(".")
            pattern = rf"{re.escape(stem)}-\d+-of-\d+\.{re.escape(ending)}"
            return [name for name in names if re.fullmatch(pattern, name)]
        table = (object_of(file) or {}).get("weight_map")
        shards = set(map(str, table.values())) if isinstance(table, dict) else set()
        if not shards or not weight_names.are_inside(shards):
            raise LoadFailed(f"{file} is not an index of weights files.", next_step=AGAIN)
        return shards

    return read


def _named_by_configuration(folder: Path) -> str | None:
    """The main file that config.json names itself, which few do; a file of the folder or an index."""
    name = (object_of(folder / "config.json") or {}).get("transformers_weights")
    return name if isinstance(name, str) and name.endswith((SAFE, f"{SAFE}.index.json")) else None


def _join(place: str, name: str) -> str:
    return (PurePosixPath(place) / name).as_posix()

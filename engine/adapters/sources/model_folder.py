"""The contents of a model's folder: the files that its library reads, and no others that happen to be there.

Beside them may be weights of other libraries and precisions, leftovers of an earlier version, notes and damaged files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from engine.adapters.sources import weight_names
from engine.adapters.sources.weight_names import ADAPTER, HEADS, SAFE
from engine.errors import LoadFailed, Unavailable
from engine.weights.files import layout

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
_OF_OTHERS: Final = (".h5", ".msgpack", ".onnx", ".gguf", ".ot", ".tflite")
_AGAIN: Final = "Download or copy the model again."

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
    named = _module_paths(folder)
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
    for place in dict.fromkeys(("", *_module_paths(folder), _TEMPLATES)):
        found += [folder / place / name for name in files_in(folder / place) if _DESCRIBES.fullmatch(name)]
    return found


def configuration(folder: Path) -> str:
    """Return a digest of the files that describe the structure of the model; it changes when one of them does."""
    digest = hashlib.sha256()
    for file in small_files(folder):
        if file.name.endswith("config.json") or file.name in ("modules.json", "config_sentence_transformers.json"):
            digest.update(spelled(file, folder) + b"\0" + file.read_bytes())
    return digest.hexdigest()


def spelled(file: Path, folder: Path) -> bytes:
    """Return the path of `file` in `folder` as bytes, the same on every system; a name need not be text."""
    return os.fsencode(file.relative_to(folder).as_posix())


def check(folder: Path, *, open_clip: bool = False) -> None:
    """Raise LoadFailed if the model's main weights are missing or damaged; reads only their headers.

    Raises Unavailable for quantised weights, whose library would have to compute with them in its own way.
    """
    if next(folder.iterdir(), None) is None:
        raise LoadFailed(f"The folder {folder} is empty.", next_step="Put the model's files there.")
    for place in ("", *module_folders(folder)):
        _refuse_quantised(folder / place)
    files = weight_files(folder, open_clip=open_clip)
    if not files:
        _refuse_without_weights(folder)
    for file in files:
        if not file.is_file():
            raise LoadFailed(
                f"{file.parent} lacks {file.name}, one of the files that its weights are split into.", next_step=_AGAIN
            )
        if file.suffix == SAFE and file.name not in ADAPTER and file.stem not in HEADS:
            layout.read(file)


def module_folders(folder: Path) -> list[str]:
    """Return the subfolders of sentence-transformers' modules: those of `modules.json`, and of routers among them."""
    return [path for path in _module_paths(folder) if path]


def files_in(place: Path) -> list[str]:
    """Return the names of the files in a folder, sorted; raises OSError for one that is there and cannot be read."""
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(place) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # a link that leads nowhere, or to a folder that must not be read
                if entry.is_file():
                    found.append(entry.name)
    return sorted(found)


def _module_paths(folder: Path) -> list[str]:
    """The folders of the modules in their order, "" for one in the model's own folder."""
    modules = _read(folder / "modules.json")
    entries = modules if isinstance(modules, list) else []
    found = _inside(entry.get("path") for entry in entries if isinstance(entry, dict))
    for place in ("", *found):
        routes = _read(folder / place / ROUTER)
        if routes is None and place:
            routes = _read(folder / place / "config.json")  # as older versions of the library wrote it
        types = routes.get("types") if isinstance(routes, dict) else None
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
        value = _read(file)
        table = value.get("weight_map") if isinstance(value, dict) else None
        shards = set(map(str, table.values())) if isinstance(table, dict) else set()
        if not shards or not weight_names.are_inside(shards):
            raise LoadFailed(f"{file} is not an index of weights files.", next_step=_AGAIN)
        return shards

    return read


def _named_by_configuration(folder: Path) -> str | None:
    """The main file that config.json names itself, which few do; a file of the folder or an index."""
    value = _read(folder / "config.json")
    name = value.get("transformers_weights") if isinstance(value, dict) else None
    return name if isinstance(name, str) and name.endswith((SAFE, f"{SAFE}.index.json")) else None


def _refuse_quantised(place: Path) -> None:
    config = _read(place / "config.json")
    parts = [config, *(config.values() if isinstance(config, dict) else ())]
    for part in parts:
        found = part.get("quantization_config") if isinstance(part, Mapping) else None
        if found:
            method = found.get("quant_method") if isinstance(found, Mapping) else None
            raise Unavailable(
                f"The weights in {place} are quantised ({method or 'by an unknown method'}), which is not supported.",
                next_step="Set `model` to the original, whose weights are in float32, float16 or bfloat16.",
            )


def _refuse_without_weights(folder: Path) -> None:
    """Raise LoadFailed, unless the model has code of its own, which may read files of any name."""
    names = [name for place in ("", *module_folders(folder)) for name in files_in(folder / place)]
    near = [name for name in names if weight_names.is_weights(name)]
    if near and any(name.endswith(".py") for name in names):
        return
    others = [name for place in ("", "onnx", "openvino") for name in files_in(folder / place)]
    others = [name for name in others if name.endswith(_OF_OTHERS)]
    if near:
        raise LoadFailed(
            f"{folder} has no weights by a name that is read, only {near[0]}.",
            next_step=f'If these are the model\'s weights, name the file "model{SAFE}".',
        )
    found = f", only {others[0]}, which is of another library" if others else ""
    raise LoadFailed(
        f"{folder} has no weights{found}.", next_step="Put a file with weights there, best in safetensors."
    )


def _read(file: Path) -> Any:
    """The value of a JSON file; None for one that is missing or damaged, of which its library tells."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        if file.is_file():
            return json.loads(file.read_text(encoding="utf-8"))
    return None


def _join(place: str, name: str) -> str:
    return (PurePosixPath(place) / name).as_posix()

"""The contents of a model's folder: its weights, and the structure of its parts."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from engine.errors import LoadFailed
from engine.weights.files import layout

SAFE: Final = ".safetensors"
PICKLED: Final = (".bin", ".pt", ".pth", ".ckpt")
"""Endings of the names of pickled weights."""
PICKLED_INDEX: Final = "pytorch_model.bin.index.json"
INDEX: Final = "model.safetensors.index.json"
ROUTER: Final = "router_config.json"
"""The file in which a router of sentence-transformers lists its subfolders with modules."""

_NO_WEIGHTS: Final = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state.*)\.\w+")
_MAIN: Final = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin|open_clip_pytorch_model\.bin")
_MAIN_SAFE: Final = re.compile(r"(open_clip_|pytorch_)*model(-\d+-of-\d+)?\.safetensors")
_LARGEST_HEAD: Final = 64 << 20
"""Bytes; a larger pickled file beside the main weights is another copy of those, and no part."""
_OF_OTHERS: Final = (".h5", ".msgpack", ".onnx", ".gguf", ".ot", ".tflite")


def weight_files(folder: Path) -> list[Path]:
    """Return the files with weights of the model in `folder`: safetensors, and pickled ones that have no such twin.

    Only the folder itself and those of its modules count: in its other subfolders training leaves checkpoints and
    exporters leave other formats.
    """
    found: list[Path] = []
    for place in places(folder):
        found += [*(file for file in sorted(place.glob(f"*{SAFE}")) if file.is_file()), *pickled_in(place)]
    return found


def places(folder: Path) -> list[Path]:
    """Return the folders that can hold weights of the model in `folder`: its own and those of its modules."""
    found = [folder]
    for module in module_folders(folder):
        found += [folder / module, *(sub for sub in sorted((folder / module).rglob("*")) if sub.is_dir())]
    return found


def pickled_in(place: Path) -> list[Path]:
    """Return the pickled files of one folder with weights that none of its safetensors files has."""
    files = {file.name: file.stat().st_size for file in sorted(place.glob("*")) if file.is_file()}
    return [place / name for name in pickled_only(files)]


def pickled_only(files: Mapping[str, int]) -> list[str]:
    """Return the pickled files of one folder, name -> size in bytes, with weights that no safetensors file there has.

    Beside the main weights those are small heads, such as BGE-M3's `sparse_linear.pt`.
    """
    has_safe_main = INDEX in files or any(_MAIN_SAFE.fullmatch(name) for name in files)
    has_main = has_safe_main or any(_MAIN.fullmatch(name) for name in files)
    found = []
    for name, size in sorted(files.items()):
        if not size or not name.endswith(PICKLED) or _NO_WEIGHTS.fullmatch(name):
            continue
        if _MAIN.fullmatch(name):
            wanted = not has_safe_main
        elif name.startswith("pytorch_model."):
            wanted = False  # a variant, as in half precision
        else:
            wanted = safe_name(name) not in files and (not has_main or size <= _LARGEST_HEAD)
        if wanted:
            found.append(name)
    return found


def is_indispensable(file: Path) -> bool:
    """Return whether a model needs this pickled file of its folder, as far as the name says."""
    others = [other.name for other in file.parent.glob("*")]
    alone = not any(_MAIN.fullmatch(name) or _MAIN_SAFE.fullmatch(name) for name in others)
    return alone or _MAIN.fullmatch(file.name) is not None or file.stem.endswith("_linear")


def safe_name(name: str) -> str:
    """Return the name that libraries give the safetensors file with the tensors of a pickled one."""
    if name == PICKLED_INDEX:
        return INDEX
    stem = Path(name).stem
    return (re.sub(r"pytorch_model", "model", stem) if _MAIN.fullmatch(name) else stem) + SAFE


def check(folder: Path) -> None:
    """Raise LoadFailed if the model's main weights are missing or damaged; reads only their headers."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    if not files:
        raise LoadFailed(f"The folder {folder} is empty.", next_step="Put the model's files there.")
    if not any(file.name.endswith((SAFE, *PICKLED)) and not _NO_WEIGHTS.fullmatch(file.name) for file in files):
        others = sorted(file.name for file in files if file.suffix in _OF_OTHERS)
        found = f", only {others[0]}, which is of another library" if others else ""
        raise LoadFailed(
            f"{folder} has no weights{found}.", next_step="Put a file with weights there, best in safetensors."
        )
    for place in places(folder):
        for name in (INDEX, PICKLED_INDEX):
            if name == INDEX or not (place / INDEX).exists():
                _check_shards(place, name)
    for file in weight_files(folder):
        if _MAIN_SAFE.fullmatch(file.name):
            layout.read(file)


def _check_shards(place: Path, index: str) -> None:
    if not (place / index).is_file() or (place / "model.safetensors").is_file():
        return
    try:
        shards = set(json.loads((place / index).read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise LoadFailed(
            f"{place / index} is not an index of weights files.", next_step="Download or copy the model again."
        ) from error
    missing = sorted(str(shard) for shard in shards if not (place / str(shard)).is_file())
    if missing:
        raise LoadFailed(
            f"{place} lacks {missing[0]}, one of the {len(shards)} files that its weights are split into.",
            next_step="Download or copy the model again.",
        )


def module_folders(folder: Path) -> list[str]:
    """Return the subfolders of sentence-transformers' modules: those of `modules.json`, and of routers among them."""
    found: list[str] = []
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        found += [str(module["path"]) for module in modules if module["path"]]
    for place in ("", *found):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            routes = json.loads((folder / place / ROUTER).read_text(encoding="utf-8"))["types"]
            found += [(PurePosixPath(place) / way).as_posix() for way in routes]
    return found


def in_one_layout(files: Iterable[str], *, open_clip: bool) -> set[str]:
    """Return the names of one folder without the main weights for the other library, if it has those of both.

    `open_clip` says that this library will read it, else it is transformers.
    """
    names = set(files)
    weights = {name for name in names if name in (INDEX, PICKLED_INDEX) or _MAIN.fullmatch(name)}
    weights |= {name for name in names if _MAIN_SAFE.fullmatch(name)}
    theirs = {name for name in weights if name.startswith("open_clip_")}
    usual = weights - theirs if "config.json" in names else set()
    if not theirs or not usual:
        return names
    return names - (usual if open_clip else theirs)


def configuration(folder: Path) -> str:
    """Return a digest of the files that describe the structure of the model; it changes when one of them does."""
    digest = hashlib.sha256()
    for place in ("", *module_folders(folder)):
        for file in sorted((folder / place).glob("*config*.json")):
            digest.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes())
    with contextlib.suppress(OSError):
        digest.update((folder / "modules.json").read_bytes())
    return digest.hexdigest()

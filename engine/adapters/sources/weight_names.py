"""The names of the files that libraries read weights from, among all the names in one folder of a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from pathlib import PurePosixPath, PureWindowsPath
from typing import Final

SAFE: Final = ".safetensors"
PICKLED: Final = (".bin", ".pt", ".pth", ".ckpt")
"""Endings of the names of pickled weights."""
OF_OTHERS: Final = (".h5", ".msgpack", ".onnx", ".gguf", ".ot", ".tflite")
"""Endings of the names of weights for other libraries."""
INDEX: Final = "model.safetensors.index.json"
PICKLED_INDEX: Final = "pytorch_model.bin.index.json"
HEADS: Final = ("sparse_linear", "colbert_linear")
"""The heads of BGE-M3's kind of model, without their ending."""
ADAPTER: Final = ("adapter_model.safetensors", "adapter_model.bin")
"""The weights of an adapter, such as LoRA's, by preference; `adapter_config.json` describes it."""

_USUAL: Final = ("model.safetensors", INDEX, "pytorch_model.bin", PICKLED_INDEX)
"""The main file in the order in which transformers looks for it (`_get_resolved_checkpoint_files`)."""
_OPEN_CLIP: Final = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
"""The same for open_clip."""
MAIN: Final = (*_USUAL, *_OPEN_CLIP)
_PICKLED_MAIN: Final = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin|open_clip_pytorch_model\.bin")

Shards = Callable[[str], Collection[str]]
"""Returns the files that the index of this name lists."""


def main_names(names: Collection[str], shards: Shards, *, open_clip: bool = False) -> list[str]:
    """Return the names of the main weights among `names`: one file, or the shards that an index lists.

    `open_clip` says that this library will read them, else it is transformers. A file of any other name is none, except
    the only one in a folder for open_clip.
    """
    order = (*_OPEN_CLIP, *_USUAL) if open_clip else (*_USUAL, *_OPEN_CLIP)
    main = next((name for name in order if name in names), None)
    if main is not None:
        return sorted(shards(main)) if main in (INDEX, PICKLED_INDEX) else [main]
    others = [name for name in names if is_weights(name)]
    others = [name for name in others if name.endswith(SAFE)] or others
    return others if open_clip and len(others) == 1 else []


def head_names(names: Collection[str]) -> list[str]:
    """Return the names of the heads and adapters beside the main weights, each once: safetensors first."""
    wanted = [[head + ending for ending in (SAFE, *PICKLED)] for head in HEADS]
    if "adapter_config.json" in names:
        wanted.append(list(ADAPTER))
    found = (next((name for name in one if name in names), None) for one in wanted)
    return [name for name in found if name is not None]


def is_weights(name: str) -> bool:
    """Return whether a file of this name could hold weights that are read here."""
    return name.endswith((SAFE, *PICKLED))


def safe_name(name: str) -> str:
    """Return the name that libraries give the safetensors file with the tensors of a pickled one."""
    if name == PICKLED_INDEX:
        return INDEX
    stem = PurePosixPath(name).stem
    return (stem.replace("pytorch_model", "model") if _PICKLED_MAIN.fullmatch(name) else stem) + SAFE


def are_inside(names: Iterable[object]) -> bool:
    """Return whether these are relative paths that lead out of no folder, on any system."""
    return all(
        isinstance(name, str)
        and name
        and not PureWindowsPath(name).anchor
        and ".." not in PureWindowsPath(name).parts
        and "\0" not in name
        for name in names
    )

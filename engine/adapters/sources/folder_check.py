"""A check of a model's folder before its library reads it: weights that are there, whole, and not quantised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from engine.adapters.sources import weight_names
from engine.adapters.sources.json_file import object_of
from engine.adapters.sources.model_folder import AGAIN, files_in, module_folders, small_files, weight_files
from engine.adapters.sources.weight_names import ADAPTER, HEADS, OF_OTHERS, SAFE
from engine.errors import Unavailable
from engine.weights.files import layout

_POINTER: Final = b"version https://git-lfs.github.com/"
_LONGEST_POINTER: Final = 1024
"""Bytes; Git LFS writes a text of this size at most in place of a file."""


def check(folder: Path, *, open_clip: bool = False) -> None:
    """Raise Unavailable if the model's main weights are missing, LoadFailed if they are damaged; reads only headers.

    Raises Unavailable too for pointers of Git LFS, and for quantised weights, whose library would have to compute with
    them in its own way.
    """
    if next(folder.iterdir(), None) is None:
        raise Unavailable(f"The folder {folder} is empty.", next_step="Put the model's files there.")
    for place in ("", *module_folders(folder)):
        _refuse_quantised(folder / place)
    files = weight_files(folder, open_clip=open_clip)
    if not files:
        _refuse_without_weights(folder)
    _refuse_pointers([*files, *small_files(folder)])
    for file in files:
        if not file.is_file():
            raise Unavailable(
                f"{file.parent} lacks {file.name}, one of the files that its weights are split into.", next_step=AGAIN
            )
        if file.suffix == SAFE and file.name not in ADAPTER and file.stem not in HEADS:
            layout.read(file)


def _refuse_quantised(place: Path) -> None:
    config = object_of(place / "config.json") or {}
    for part in (config, *config.values()):
        found = part.get("quantization_config") if isinstance(part, Mapping) else None
        if found:
            method = found.get("quant_method") if isinstance(found, Mapping) else None
            raise Unavailable(
                f"The weights in {place} are quantised ({method or 'by an unknown method'}), which is not supported.",
                next_step="Set `model` to the original, whose weights are in float32, float16 or bfloat16.",
            )


def _refuse_pointers(files: Iterable[Path]) -> None:
    for file in files:
        if file.is_file() and file.stat().st_size <= _LONGEST_POINTER and file.read_bytes().startswith(_POINTER):
            raise Unavailable(
                f"{file} is only a pointer of Git LFS to the file.",
                next_step="Run in the folder of the model: git lfs pull",
            )


def _refuse_without_weights(folder: Path) -> None:
    """Raise Unavailable, unless the model has code of its own, which may read files of any name."""
    names = [name for place in ("", *module_folders(folder)) for name in files_in(folder / place)]
    near = [name for name in names if weight_names.is_weights(name)]
    if near and any(name.endswith(".py") for name in names):
        return
    others = [name for place in ("", "onnx", "openvino") for name in files_in(folder / place)]
    others = [name for name in others if name.endswith(OF_OTHERS)]
    if near:
        raise Unavailable(
            f"{folder} has no weights by a name that is read, only {near[0]}.",
            next_step=f'If these are the model\'s weights, name the file "model{SAFE}".',
        )
    found = f", only {others[0]}, which is of another library" if others else ""
    raise Unavailable(
        f"{folder} has no weights{found}.", next_step="Put a file with weights there, best in safetensors."
    )

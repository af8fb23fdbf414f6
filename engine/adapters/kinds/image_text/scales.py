"""The learned scale and bias of a model of images and texts, read from the checkpoint without a tower."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from engine.adapters.sources.model_folder import weight_files

SCALE: Final = "logit_scale"
BIAS: Final = "logit_bias"


def scales(folder: Path) -> dict[str, float | None]:
    """Return `logit_scale`, a natural logarithm, and `logit_bias` of the checkpoint in `folder`; None = it has none."""
    found: dict[str, float | None] = {SCALE: None, BIAS: None}
    for file in weight_files(folder):
        if None in found.values():
            for name, value in _numbers(file).items():
                found[name] = found[name] if found[name] is not None else value
    return found


def _numbers(file: Path) -> dict[str, float]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        names = set(tensors.keys()) & {SCALE, BIAS}
        return {name: _number(tensors.get_tensor(name)) for name in names}


def _number(tensor: Any) -> float:
    return float(tensor.reshape(-1)[0])

"""The learned scale and bias of a model of images and texts, read from the checkpoint without a tower."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from engine.adapters.sources.model_folder import weight_files

SCALE: Final = "logit_scale"
BIAS: Final = "logit_bias"
_LARGEST: Final = 700.0
"""The power of e that a float holds."""


def scales(folder: Path, *, open_clip: bool = False) -> dict[str, float | None]:
    """Return `logit_scale`, a natural logarithm, and `logit_bias` of the checkpoint in `folder`; None = it has none."""
    found: dict[str, float | None] = {SCALE: None, BIAS: None}
    for file in weight_files(folder, open_clip=open_clip):
        if None in found.values():
            for name, value in _numbers(file).items():
                found[name] = found[name] if found[name] is not None else value
    return found


def without_unusable(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts with scale and bias None if one of both is NaN, infinite or absurdly large."""
    learned = [facts[SCALE], facts[BIAS]]
    usable = all(value is None or abs(value) < _LARGEST for value in learned)
    return dict(facts) if usable else {**facts, SCALE: None, BIAS: None}


def _numbers(file: Path) -> dict[str, float]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        names = set(tensors.keys()) & {SCALE, BIAS}
        return {name: _number(tensors.get_tensor(name)) for name in names}


def _number(tensor: Any) -> float:
    return float(tensor.reshape(-1)[0])

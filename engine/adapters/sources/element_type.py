"""The element type that a model's weights files hold; what its configuration says of it may be out of date."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from engine.adapters.sources.model_folder import weight_files
from engine.adapters.sources.weight_names import SAFE
from engine.weights.files import layout

_HALF: Final = {"F16": "float16", "BF16": "bfloat16"}
_FLOATING: Final = ("F", "BF")  # safetensors' spelling: F64, F32, BF16, F8_E4M3, ...


def element_type(folder: Path, *, heads: bool = False, counts: Callable[[str], bool] = lambda name: True) -> str:
    """Return torch's name of the narrowest type that holds every floating weight in `folder` exactly.

    A model's modules compute in one type, so of several the widest: no weight becomes narrower than in its file.
    `folder` has no pickled weights any more. Weights whose name `counts` refuses are left out, as are, unless `heads`,
    those of heads. Raises LoadFailed for a damaged file.
    """
    files = [file for file in weight_files(folder, heads=heads) if file.suffix == SAFE]
    places = (place for file in files for place in layout.read(file))
    types = {place.dtype for place in places if place.dtype.startswith(_FLOATING) and counts(place.name)}
    if "F64" in types:
        return "float64"
    if len(types) == 1 and (half := _HALF.get(types.copy().pop())):
        return half
    return "float32"

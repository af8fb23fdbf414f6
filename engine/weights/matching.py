"""Which place in which file holds a tensor's bytes."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from collections.abc import Mapping as Table
from pathlib import Path
from typing import TYPE_CHECKING

from engine.weights import libc
from engine.weights.layout import Place
from engine.weights.mapping import TORCH_NAMES, Mapping
from engine.weights.survey import Stretch

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

Found = Table[str, tuple[Path, str]]
"""Stretch -> the file, and the tensor in it, that holds its bytes."""


class Places:
    """The tensors of some files that no stretch took yet."""

    def __init__(self, mappings: Iterable[Mapping]) -> None:
        self._free: dict[tuple[str, int], list[tuple[Mapping, Place]]] = {}
        for mapping in mappings:
            for place in filter(mapping.can_view, mapping.places.values()):
                key = (TORCH_NAMES[place.dtype], math.prod(place.shape))
                self._free.setdefault(key, []).append((mapping, place))

    def take(self, stretch: Stretch, known: Found) -> tuple[Mapping, Place] | None:
        """Return the place whose bytes are those of `stretch`, None for none; the most alike name is looked at first.

        Names alone say little, because libraries rename. A place serves one stretch: two that are equal by chance must
        not become one. What is `known` from an earlier look at the same files is not compared again.
        """
        fitting = self._free.get((type_name(stretch.flat.dtype), stretch.flat.numel()), [])
        fitting.sort(key=lambda pair: _likeness(stretch.name, pair[1].name), reverse=True)
        wanted = known.get(stretch.name)
        for index, (mapping, place) in enumerate(fitting):
            if wanted == (mapping.identity.path, place.name) or same(stretch.flat, mapping.flat(place)):
                return fitting.pop(index)
        return None


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two tensors on the CPU, each one row of elements, hold the same bytes."""
    return left.nbytes == right.nbytes and libc.same_bytes(left.data_ptr(), right.data_ptr(), left.nbytes)


def type_name(dtype: torch.dtype) -> str:
    """Return torch's own name of an element type: float32, bool, ..."""
    return str(dtype).removeprefix("torch.")


def _likeness(name: str, other: str) -> int:
    """How many parts of two dotted names agree, from the end."""
    alike = 0
    for mine, theirs in zip(reversed(name.split(".")), reversed(other.split(".")), strict=False):
        if mine != theirs:
            break
        alike += 1
    return alike

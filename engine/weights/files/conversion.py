"""Weights that no file holds as they are used, written once into a file that does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping as Table
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.weights.files.identity import Identity
from engine.weights.files.mapping import TORCH_NAMES
from engine.weights.files.matching import type_name
from engine.weights.files.store import Entry, Store
from engine.weights.files.survey import Stretch

if TYPE_CHECKING:
    import torch

_FORMAT: Final = 1
"""Counts up when converted files are written in another way."""
_SPELLED: Final = {torch_name: name for name, torch_name in TORCH_NAMES.items()}


def can_hold(dtype: torch.dtype) -> bool:
    """Whether a file of ours can hold elements of this type."""
    return type_name(dtype) in _SPELLED


def convert(
    stretches: Sequence[Stretch],
    types: Table[str, torch.dtype],
    store: Store,
    *,
    sources: Sequence[Identity],
    made_by: str,
) -> Path:
    """Return the file in `store` that holds `stretches`, each as one row of elements of its type in `types`.

    It is written unless an earlier one of the same `sources`, read by the same libraries in the same way (`made_by`),
    is there. Raises OSError.
    """
    entries = [
        Entry(
            stretch.name,
            _SPELLED[type_name(types[stretch.name])],
            (stretch.flat.numel(),),
            partial(_bytes, stretch.flat, types[stretch.name]),
        )
        for stretch in stretches
    ]
    what = [(entry.name, entry.dtype, entry.shape) for entry in entries]
    identity = [_FORMAT, made_by, [source.key for source in sources], what]
    return store.provide(hashlib.sha256(json.dumps(identity).encode()).hexdigest(), entries)


def _bytes(flat: torch.Tensor, dtype: torch.dtype) -> Any:
    """The elements as `dtype`, as bytes that a file takes."""
    import torch

    return flat.to(dtype).view(torch.uint8).numpy()

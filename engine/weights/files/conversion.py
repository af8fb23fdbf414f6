"""The conversion of weights that no file holds as the module uses them, written once to a file of ours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping as Table, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.weights.files import pages
from engine.weights.files.identity import Identity
from engine.weights.files.inventory import Region
from engine.weights.files.mapping import TORCH_NAMES
from engine.weights.files.matching import give_back_unwritten, type_name
from engine.weights.files.pages import Backings
from engine.weights.files.store import Entry, Store

if TYPE_CHECKING:
    import torch

_FORMAT: Final = 1
"""The version of converted files, raised when they are written differently."""
_AT_ONCE: Final = 16 << 20  # bytes of the file
_SPELLED: Final = {torch_name: name for name, torch_name in TORCH_NAMES.items()}


def can_hold(dtype: torch.dtype) -> bool:
    """Whether a converted file can hold elements of this type."""
    return type_name(dtype) in _SPELLED


def convert(
    regions: Sequence[Region],
    types: Table[str, torch.dtype],
    store: Store,
    *,
    sources: Sequence[Identity],
    made_by: str,
) -> Path:
    """Return the file in `store` that holds `regions`, each as one row of elements of its type in `types`.

    An earlier file from the same `sources` and `made_by` is reused. Otherwise it is written 16 MiB at a time, and the
    file pages behind `regions` are given back as soon as they are read. Raises OSError.
    """
    backings = pages.backings()
    entries = [
        Entry(
            region.name,
            _SPELLED[type_name(types[region.name])],
            (region.flat.numel(),),
            partial(_parts, region.flat, types[region.name], backings),
        )
        for region in regions
    ]
    what = [(entry.name, entry.dtype, entry.shape) for entry in entries]
    identity = [_FORMAT, made_by, [source.key for source in sources], what]
    return store.provide(hashlib.sha256(json.dumps(identity).encode()).hexdigest(), entries)


def _parts(flat: torch.Tensor, dtype: torch.dtype, backings: Backings) -> Iterator[Any]:
    """Return the elements as `dtype`, in parts for a file; each part reuses the memory of the one before."""
    import torch

    count = max(1, _AT_ONCE // dtype.itemsize)
    buffer = torch.empty(min(count, flat.numel()), dtype=dtype)
    for begin in range(0, flat.numel(), count):
        source = flat[begin : begin + count]
        part = buffer[: source.numel()].copy_(source)
        # These pages are copied by now, and a computer that has to stream cannot keep all of them in RAM.
        give_back_unwritten(source.data_ptr(), source.nbytes, backings)
        yield part.view(torch.uint8).numpy()

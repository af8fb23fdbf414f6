"""Weights that no file holds as they are used, written once into a file that does."""

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
from engine.weights.files.matching import let_go, type_name
from engine.weights.files.pages import Backings
from engine.weights.files.store import Entry, Store

if TYPE_CHECKING:
    import torch

_FORMAT: Final = 1
"""Counts up when converted files are written in another way."""
_AT_ONCE: Final = 16 << 20  # bytes of the file
_SPELLED: Final = {torch_name: name for name, torch_name in TORCH_NAMES.items()}


def can_hold(dtype: torch.dtype) -> bool:
    """Whether a file of ours can hold elements of this type."""
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

    It is written unless an earlier one of the same `sources`, read by the same libraries in the same way (`made_by`),
    is there, 16 MiB at a time: the pages of files that `regions` lie on go back as soon as they were read. Raises
    OSError.
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
    """The elements as `dtype`, in parts that a file takes: each lies where the one before it lay."""
    import torch

    count = max(1, _AT_ONCE // dtype.itemsize)
    room = torch.empty(min(count, flat.numel()), dtype=dtype)
    for begin in range(0, flat.numel(), count):
        source = flat[begin : begin + count]
        part = room[: source.numel()].copy_(source)
        # What the file's pages held is copied by now, and a machine that streams has no room for all of them.
        let_go(source.data_ptr(), source.nbytes, backings)
        yield part.view(torch.uint8).numpy()

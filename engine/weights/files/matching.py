"""The search for the place in a file that holds a region's bytes."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from mmap import PAGESIZE
from typing import TYPE_CHECKING, Final

from engine.weights import libc
from engine.weights.files import pages
from engine.weights.files.inventory import Region
from engine.weights.files.layout import Place
from engine.weights.files.mapping import TORCH_NAMES, Mapping
from engine.weights.files.pages import Backing, Backings
from engine.weights.home_request import Locations

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

_AT_ONCE: Final = 16 << 20  # bytes


class Places:
    """The tensors of some files that are not assigned to a region yet."""

    def __init__(self, mappings: Iterable[Mapping]) -> None:
        self._backings = pages.backings()
        self._free: dict[tuple[str, int], list[tuple[Mapping, Place]]] = {}
        for mapping in mappings:
            for place in filter(mapping.can_view, mapping.places.values()):
                key = (TORCH_NAMES[place.dtype], math.prod(place.shape))
                self._free.setdefault(key, []).append((mapping, place))

    def take(self, region: Region, known: Locations) -> tuple[Mapping, Place] | None:
        """Remove and return a place that holds the region's bytes, the most similar name first; None if none does.

        Bytes are compared, because libraries rename tensors. A place serves one region, so that two regions that are
        equal by chance stay apart. A location in `known`, and elements that are still an unwritten mapping of the file,
        need no comparison and touch no page.
        """
        fitting = self._free.get((type_name(region.flat.dtype), region.flat.numel()), [])
        fitting.sort(key=lambda pair: _likeness(region.name, pair[1].name), reverse=True)
        wanted, origin = known.get(region.name), self._origin(region.flat)
        for index, (mapping, place) in enumerate(fitting):
            if wanted == (mapping.identity.path, place.name):
                return fitting.pop(index)
            if origin is not None and origin == mapping.backing(place, self._backings):
                return fitting.pop(index)
        for index, (mapping, place) in enumerate(fitting):
            if same(region.flat, mapping.flat(place), self._backings):
                return fitting.pop(index)
        return None

    def _origin(self, flat: torch.Tensor) -> Backing | None:
        """Return the place in a file that the elements are mapped from; None if they may differ from it by now."""
        origin = self._backings.of(flat.data_ptr(), flat.nbytes)
        return origin if origin and pages.usage(flat.data_ptr(), flat.nbytes).written == 0 else None


def same(left: torch.Tensor, right: torch.Tensor, backings: Backings | None = None) -> bool:
    """Whether two tensors on the CPU, each one row of elements, hold the same bytes.

    Compared pages that `backings` maps from a file, and that were not written to, are given back; no other thread may
    write to them meanwhile.
    """
    if left.nbytes != right.nbytes:
        return False
    for begin in range(0, left.nbytes, _AT_ONCE):
        size = min(_AT_ONCE, left.nbytes - begin)
        addresses = (left.data_ptr() + begin, right.data_ptr() + begin)
        if not libc.same_bytes(*addresses, size):
            return False
        for address in addresses:
            if backings is not None:
                give_back_unwritten(address, size, backings)
    return True


def give_back_unwritten(address: int, size: int, backings: Backings) -> None:
    """Give the whole pages of a range back, if `backings` maps them from a file and they are unwritten.

    No other thread may write to the range meanwhile.
    """
    start, end = -(-address // PAGESIZE) * PAGESIZE, (address + size) // PAGESIZE * PAGESIZE
    if start < end and backings.of(start, end - start) and pages.usage(start, end - start).written == 0:
        try:
            pages.give_back(start, end - start)
        except OSError as error:
            _log.debug("not given back: %s", error)


def type_name(dtype: torch.dtype) -> str:
    """Return torch's own name of an element type: float32, bool, ..."""
    return str(dtype).removeprefix("torch.")


def _likeness(name: str, other: str) -> int:
    """Return how many parts of two dotted names agree, counted from the end."""
    alike = 0
    for mine, theirs in zip(reversed(name.split(".")), reversed(other.split(".")), strict=False):
        if mine != theirs:
            break
        alike += 1
    return alike

"""The mapping of one weights file into memory, whose tensors are views of the file's pages."""

from __future__ import annotations

import ctypes
import math
import mmap
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engine.weights.files import layout, pages
from engine.weights.files.identity import Identity
from engine.weights.files.layout import Place
from engine.weights.files.pages import Backing, Backings, Usage

if TYPE_CHECKING:
    import torch

TORCH_NAMES: Final = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""safetensors' name of an element type -> torch's."""


def warm_cache(path: Path) -> None:
    """Read the file into the system's cache in large pieces; at most one piece is resident in this process.

    Raises OSError.
    """
    if path.stat().st_size:  # no system maps an empty file
        with path.open("rb", buffering=0) as file:
            pages.warm(file)


def runs_of(places: Iterable[Place]) -> tuple[tuple[int, int], ...]:
    """Return the pages of tensors of one file as (begin, end) in bytes, in order and without overlap."""
    runs: list[tuple[int, int]] = []
    for place in sorted(places, key=lambda place: place.begin):
        begin = place.begin // mmap.PAGESIZE * mmap.PAGESIZE
        end = -(-(place.begin + place.nbytes) // mmap.PAGESIZE) * mmap.PAGESIZE
        if runs and begin <= runs[-1][1]:
            begin, end = runs[-1][0], max(runs.pop()[1], end)
        runs.append((begin, end))
    return tuple(runs)


class Mapping:
    """A copy-on-write mapping of one safetensors file.

    Its pages are read from the file when they are touched, and are dropped at no cost. A write to a view stays in this
    process, in private copies of the pages, and never reaches the file.
    """

    def __init__(self, path: Path) -> None:
        """Map the file at `path`, reading only its header; raises LoadFailed or OSError."""
        self.places = {place.name: place for place in layout.read(path)}
        with path.open("rb") as file:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.identity = Identity.of(path)
        self._memory: mmap.mmap | None = memory
        self._seen = weakref.ref(memory)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._length = len(memory)

    def can_view(self, place: Place) -> bool:
        """Whether torch can compute on the bytes in place."""
        return place.dtype in TORCH_NAMES and place.begin % layout.ITEM_SIZES[place.dtype] == 0

    def flat(self, place: Place) -> torch.Tensor:
        """Return the tensor at `place` as one row of its elements, (n,); it keeps the mapping alive."""
        import torch

        dtype = getattr(torch, TORCH_NAMES[place.dtype])
        count = math.prod(place.shape)
        return torch.frombuffer(self._memory, dtype=dtype, count=count, offset=place.begin)

    def usage(self, runs: Iterable[tuple[int, int]] | None = None) -> Usage:
        """Return how many of its bytes are resident in this process now, and how many were written to.

        With `runs`, from `runs_of`, only pages in those count as resident, because around a touched page the system
        also maps neighbours that no tensor of ours needs.
        """
        if self.gone:
            return Usage(0, 0)
        whole = pages.usage(self._address, self._length)
        if runs is None or not whole.resident:
            return whole
        resident = [pages.usage(self._address + begin, end - begin).resident for begin, end in runs]
        return Usage(None if None in resident else sum(filter(None, resident)), whole.written)

    def backing(self, place: Place, known: Backings) -> Backing | None:
        """Return the system's own file and offset for a tensor in this file; None if it does not list them."""
        return known.of(self._address + place.begin, place.nbytes)

    def read_in(self) -> None:
        """Make all of its pages resident; only before `close`."""
        if self._memory is not None:
            pages.read_in(self._memory)

    def give_back(self, begin: int = 0, end: int | None = None) -> None:
        """Give all its pages, or those of a range of bytes, back to the system; writes to them are lost.

        Raises OSError.
        """
        start, length = self._pages(begin, end)
        pages.give_back(start, length)

    def will_need(self, begin: int = 0, end: int | None = None) -> None:
        """Hint that a range of bytes is needed soon; the system may read it from the disk in advance."""
        if not self.gone:
            start, length = self._pages(begin, end)
            pages.will_need(start, length)

    def close(self) -> None:
        """Drop our reference; the file is unmapped once the last view of it is freed."""
        self._memory = None

    def _pages(self, begin: int, end: int | None) -> tuple[int, int]:
        """Return the address and the length of the whole pages that contain a range."""
        last = self._length if end is None else min(end, self._length)
        first = begin // mmap.PAGESIZE * mmap.PAGESIZE
        return self._address + first, -(-max(0, last - first) // mmap.PAGESIZE) * mmap.PAGESIZE

    @property
    def gone(self) -> bool:
        """Whether the file is no longer mapped in this process."""
        return self._seen() is None

"""One weights file, mapped into memory: its tensors are views of the file's pages."""

from __future__ import annotations

import ctypes
import math
import mmap
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engine.weights import layout, pages
from engine.weights.identity import Identity
from engine.weights.layout import Place
from engine.weights.pages import Usage

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
"""The safetensors spelling of an element type -> torch's."""


def read_ahead(path: Path) -> None:
    """Bring the file into the system's cache before a library reads it piece by piece; raises OSError."""
    if not path.stat().st_size:
        return  # no system maps an empty file
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        pages.read_in(memory)


class Mapping:
    """A copy-on-write mapping of one safetensors file.

    Its pages come from the file when they are touched and go back at no cost. What is written into a view stays in
    this process, in private copies of the pages written to, and never reaches the file.
    """

    def __init__(self, path: Path) -> None:
        """Map the file at `path` without reading more than its header; raises LoadFailed or OSError."""
        self.places = {place.name: place for place in layout.read(path)}
        with path.open("rb") as file:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.identity = Identity.of(path)
        self._memory: mmap.mmap | None = memory
        self._seen = weakref.ref(memory)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._length = len(memory)

    def can_view(self, place: Place) -> bool:
        """Whether torch can compute on the bytes where they are."""
        return place.dtype in TORCH_NAMES and place.begin % layout.ITEM_SIZES[place.dtype] == 0

    def flat(self, place: Place) -> torch.Tensor:
        """Return the tensor at `place` as one row of its elements, (n,); it keeps the mapping alive."""
        import torch

        dtype = getattr(torch, TORCH_NAMES[place.dtype])
        count = math.prod(place.shape)
        return torch.frombuffer(self._memory, dtype=dtype, count=count, offset=place.begin)

    def usage(self) -> Usage:
        """Return how many of its bytes are resident, and how many were written to, in this process now."""
        return Usage(0, 0) if self.gone else pages.usage(self._address, self._length)

    def read_in(self) -> None:
        """Bring all of its pages in; only before `close`."""
        if self._memory is not None:
            pages.read_in(self._memory)

    def give_back(self) -> None:
        """Let the system have its pages; what was written into them is lost. Raises OSError."""
        pages.give_back(self._address, self._length)

    def close(self) -> None:
        """Unmap the file once the last view of it is gone."""
        self._memory = None

    @property
    def gone(self) -> bool:
        """Whether the file is no longer mapped here."""
        return self._seen() is None

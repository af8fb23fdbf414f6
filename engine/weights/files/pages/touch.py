"""The ways to bring a file in that work everywhere."""

from __future__ import annotations

import mmap
from typing import Final, Protocol

_AT_ONCE: Final = 4 << 20  # bytes


class Readable(Protocol):
    """A file that is open for reading, without a buffer of Python's."""

    def fileno(self) -> int:
        """Return its descriptor."""

    def readinto(self, buffer: bytearray, /) -> int | None:
        """Fill the buffer with what comes next and return how many bytes that were; raises OSError."""


def touch(memory: mmap.mmap) -> None:
    """Read a byte of every page, in order."""
    import numpy as np

    pages = np.frombuffer(memory, dtype=np.uint8)[:: mmap.PAGESIZE]
    pages.max()


def read_through(file: Readable) -> None:
    """Read the file to its end and keep nothing of it."""
    buffer = bytearray(_AT_ONCE)
    while file.readinto(buffer):
        pass

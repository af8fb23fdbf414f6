"""Portable ways to read a mapping or a file into memory."""

from __future__ import annotations

import mmap
from typing import Final, Protocol

_AT_ONCE: Final = 4 << 20  # bytes


class Readable(Protocol):
    """A file that is open for reading, without Python's buffering."""

    def fileno(self) -> int:
        """Return the file's descriptor."""

    def readinto(self, buffer: bytearray, /) -> int | None:
        """Read the next bytes into the buffer and return their number; raises OSError."""


def touch(memory: mmap.mmap) -> None:
    """Read a byte of every page, in order."""
    import numpy as np

    pages = np.frombuffer(memory, dtype=np.uint8)[:: mmap.PAGESIZE]
    pages.max()


def read_through(file: Readable) -> None:
    """Read the file to its end and discard the bytes."""
    buffer = bytearray(_AT_ONCE)
    while file.readinto(buffer):
        pass

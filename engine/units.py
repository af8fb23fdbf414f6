"""Units of memory, and a number of bytes in words."""

from __future__ import annotations

from typing import Final

KIB: Final = 2**10
MIB: Final = 2**20
GIB: Final = 2**30


def in_words(nbytes: int, decimals: int = 1) -> str:
    """Return bytes as `1.25 GiB` or `86.6 MiB`; `decimals` is for MiB."""
    return f"{nbytes / GIB:.2f} GiB" if nbytes >= GIB else f"{nbytes / MIB:.{decimals}f} MiB"

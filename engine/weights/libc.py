"""Two calls of the C library that Python lacks."""

from __future__ import annotations

import ctypes
from functools import cache


def trim_heap() -> None:
    """Return the free pages of glibc's allocator to the system; other allocators do that by themselves."""
    trim = getattr(_library(), "malloc_trim", None)
    if trim is not None:
        trim(0)


def same_bytes(left: int, right: int, size: int) -> bool:
    """Compare `size` bytes at two addresses, both of which must be readable."""
    difference: int = _library().memcmp(ctypes.c_void_p(left), ctypes.c_void_p(right), ctypes.c_size_t(size))
    return difference == 0


@cache
def _library() -> ctypes.CDLL:
    try:
        return ctypes.CDLL(None)
    except TypeError:  # Windows has no handle for all loaded libraries together
        return ctypes.CDLL("msvcrt")

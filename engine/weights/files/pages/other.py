"""macOS, the BSDs and other POSIX systems: a hint that pages are not needed, and no cheap figures."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

from engine.weights.files.pages.backing import Backings
from engine.weights.files.pages.usage import Usage

_MADV_DONTNEED: Final = 4  # <sys/mman.h> on macOS and the BSDs


def usage(address: int, length: int) -> Usage:
    """Say that nothing is known about residency and that dropping the pages would lose nothing."""
    # POSIX's advice changes no content (posix_madvise, "shall have no effect on the semantics"), and these systems
    # keep to it, Linux alone discards private copies: so whatever was written is safe.
    return Usage(None, 0)


def give_back(address: int, length: int) -> None:
    """Advise the system that a range is not needed now; raises OSError, ENOSYS where it takes no advice."""
    libc = ctypes.CDLL(None, use_errno=True)
    madvise = getattr(libc, "madvise", None)
    if madvise is None:
        raise OSError(errno.ENOSYS, "this system has no madvise")
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if length and madvise(address, length, _MADV_DONTNEED):
        number = ctypes.get_errno()
        raise OSError(number, f"madvise: {os.strerror(number)}")


def backings() -> Backings:
    """Say that nothing is known of which memory is a file's."""
    return Backings()


def will_need(address: int, length: int) -> None:
    """Do nothing; reading ahead is left to the system."""

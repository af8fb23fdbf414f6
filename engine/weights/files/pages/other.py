"""Pages on macOS, the BSDs and other POSIX systems: a hint that they are not needed, and no figures."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

from engine.weights.files.pages.backing import Backings
from engine.weights.files.pages.usage import Usage

_MADV_DONTNEED: Final = 4  # <sys/mman.h> on macOS and the BSDs


def usage(address: int, length: int) -> Usage:
    """Return that residency is unknown and that dropping the pages loses nothing."""
    # By POSIX (posix_madvise) the advice does not change the content of memory, and these systems comply; Linux alone
    # discards private copies. So writes are safe.
    return Usage(None, 0)


def give_back(address: int, length: int) -> None:
    """Advise the system that a range is not needed now; raises OSError, ENOSYS if it takes no advice."""
    libc = ctypes.CDLL(None, use_errno=True)
    madvise = getattr(libc, "madvise", None)
    if madvise is None:
        raise OSError(errno.ENOSYS, "this system has no madvise")
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if length and madvise(address, length, _MADV_DONTNEED):
        number = ctypes.get_errno()
        raise OSError(number, f"madvise: {os.strerror(number)}")


def backings() -> Backings:
    """Return no mappings, because the system does not list them."""
    return Backings()


def will_need(address: int, length: int) -> None:
    """Do nothing; the system reads ahead by itself."""

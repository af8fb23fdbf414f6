"""Pages on Windows: the working set's list of them, and the regions that a write made private.

Sources, by their titles at learn.microsoft.com: "VirtualUnlock function (memoryapi.h)", "VirtualQuery function
(memoryapi.h)", "MEMORY_BASIC_INFORMATION structure (winnt.h)", "QueryWorkingSetEx function (psapi.h)",
"PSAPI_WORKING_SET_EX_BLOCK union (psapi.h)", "Memory Protection Constants (WinNT.h)".
"""

from __future__ import annotations

import ctypes
import functools
import mmap
from collections.abc import Callable
from typing import Any, Final

from engine.weights.files.pages.backing import Backings
from engine.weights.files.pages.usage import Usage

_ERROR_NOT_LOCKED: Final = 158
_MEM_MAPPED: Final = 0x40000
_PROTECTION: Final = 0xFF  # without the modifiers: guard, no cache, write-combine
_PRIVATE: Final = (0x04, 0x40)  # PAGE_READWRITE, also executable; PAGE_WRITECOPY until the first write
_VALID: Final = 1
_SHARED: Final = 1 << 15
_CHUNK_PAGES: Final = 65536  # 1 MiB of answers per call


class _MemoryInformation(ctypes.Structure):
    """`MEMORY_BASIC_INFORMATION`; on 64 bits, natural alignment leaves the place of PartitionId."""

    _fields_ = [
        ("BaseAddress", ctypes.c_size_t),
        ("AllocationBase", ctypes.c_size_t),
        ("AllocationProtect", ctypes.c_uint32),
        ("RegionSize", ctypes.c_size_t),
        ("State", ctypes.c_uint32),
        ("Protect", ctypes.c_uint32),
        ("Type", ctypes.c_uint32),
    ]


class Memory:
    """This process's memory through kernel32; `last_error` returns the error of the thread's latest call."""

    def __init__(self, kernel32: Any, last_error: Callable[[], int]) -> None:
        self._kernel32 = kernel32
        self._last_error = last_error

    def usage(self, address: int, length: int) -> Usage:
        """Return how many bytes of a range are in the working set and how many were written to."""
        start = address // mmap.PAGESIZE * mmap.PAGESIZE
        end = -(-(address + length) // mmap.PAGESIZE) * mmap.PAGESIZE if length else start
        counted = self._working_set(start, end)
        if counted is None:
            return Usage(None, self._unshared(start, end))
        resident, private = counted
        # The documented sign of a write covers only pages in the working set, the region's protection all of them.
        return Usage(resident, max(private, self._unshared(start, end)))

    def give_back(self, address: int, length: int) -> None:
        """Remove the pages of a range from the working set; writes to them are kept.

        VirtualUnlock does that with pages that are not locked, and then fails with ERROR_NOT_LOCKED. Raises OSError.
        """
        if length and not self._kernel32.VirtualUnlock(address, length):
            code = self._last_error()
            if code != _ERROR_NOT_LOCKED:
                raise OSError(0, f"VirtualUnlock failed with Windows error {code}", None, code)

    def _working_set(self, start: int, end: int) -> tuple[int, int] | None:
        """Return the bytes in the working set, and the private ones among them; None if Windows does not say."""
        import numpy as np

        resident = private = 0
        process = self._kernel32.GetCurrentProcess()
        for first in range(start, end, _CHUNK_PAGES * mmap.PAGESIZE):
            last = min(end, first + _CHUNK_PAGES * mmap.PAGESIZE)
            # PSAPI_WORKING_SET_EX_INFORMATION: the page's address, then its flags, each as wide as a pointer.
            pages = np.zeros(((last - first) // mmap.PAGESIZE, 2), dtype=np.uintp)
            pages[:, 0] = np.arange(first, last, mmap.PAGESIZE, dtype=np.uintp)
            if not self._kernel32.K32QueryWorkingSetEx(process, pages.ctypes.data, pages.nbytes):
                return None
            valid = pages[:, 1] & _VALID != 0
            resident += int(valid.sum()) * mmap.PAGESIZE
            private += int((valid & (pages[:, 1] & _SHARED == 0)).sum()) * mmap.PAGESIZE
        return resident, private

    def _unshared(self, start: int, end: int) -> int:
        """Return the bytes of a copy-on-write view that were copied, by its protection, resident or not."""
        region, copied = _MemoryInformation(), 0
        while start < end and self._kernel32.VirtualQuery(start, ctypes.byref(region), ctypes.sizeof(region)):
            after = region.BaseAddress + region.RegionSize
            if after <= start:
                break
            if region.Type == _MEM_MAPPED and region.Protect & _PROTECTION in _PRIVATE:
                copied += min(end, after) - start
            start = after
        return copied


def usage(address: int, length: int) -> Usage:
    """Return how many bytes of a range are in the working set and how many were written to."""
    return _memory().usage(address, length)


def give_back(address: int, length: int) -> None:
    """Remove the pages of a range from the working set; raises OSError."""
    _memory().give_back(address, length)


def backings() -> Backings:
    """Return no mappings; they are not listed on Windows."""
    return Backings()


def will_need(address: int, length: int) -> None:
    """Do nothing; Windows reads ahead by itself."""


@functools.cache
def _memory() -> Memory:
    windll: Any = getattr(ctypes, "WinDLL")  # noqa: B009 - exists on Windows only, where mypy's Linux view ends
    last_error: Callable[[], int] = getattr(ctypes, "get_last_error")  # noqa: B009 - as above
    kernel32 = windll("kernel32", use_last_error=True)
    pointer, size, dword = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32
    kernel32.GetCurrentProcess.argtypes, kernel32.GetCurrentProcess.restype = [], pointer
    kernel32.VirtualUnlock.argtypes, kernel32.VirtualUnlock.restype = [pointer, size], ctypes.c_int
    kernel32.VirtualQuery.argtypes, kernel32.VirtualQuery.restype = [pointer, pointer, size], size
    kernel32.K32QueryWorkingSetEx.argtypes = [pointer, pointer, dword]
    kernel32.K32QueryWorkingSetEx.restype = ctypes.c_int
    return Memory(kernel32, last_error)

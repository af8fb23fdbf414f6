"""Pages on Linux: the page tables through one ioctl if the kernel has it (6.7), else the list of pages."""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from engine.weights.files.pages.backing import AddressRange, Backing, Backings
from engine.weights.files.pages.touch import Readable, read_through, touch
from engine.weights.files.pages.usage import Usage

_MADV_WILLNEED: Final = 3  # <asm-generic/mman-common.h>, as the next three
_MADV_DONTNEED: Final = 4
_MADV_HUGEPAGE: Final = 14
_MADV_POPULATE_READ: Final = 22
_PAGE_IS_FILE: Final = 1 << 2  # <linux/fs.h>, as the rest of the ioctl
_PAGE_IS_PRESENT: Final = 1 << 3
_PAGE_IS_SWAPPED: Final = 1 << 4
_READ_AHEAD: Final = 128 << 10  # bytes; the kernel's default for a device
_WARMED_AT_ONCE: Final = 32 << 20  # bytes
_REGIONS: Final = 4096  # per call; 96 KiB
_OF_A_FILE, _SWAPPED, _PRESENT = 1, 2, 4
_ENTRY_BYTES: Final = 8
_PAGES_AT_ONCE: Final = 65536  # 512 KiB of entries
_UNSUPPORTED: Final = (errno.ENOTTY, errno.EINVAL, errno.EPERM, errno.EACCES, errno.ENOENT, errno.ENOSYS)

UsageOf = Callable[[int, int], Usage]


class _Scan(ctypes.Structure):
    """`struct pm_scan_arg`."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "size",
            "flags",
            "start",
            "end",
            "walk_end",
            "vec",
            "vec_len",
            "max_pages",
            "category_inverted",
            "category_mask",
            "category_anyof_mask",
            "return_mask",
        )
    ]


class _PageRegion(ctypes.Structure):
    """`struct page_region`."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("start", "end", "categories")]


_PAGEMAP_SCAN: Final = 3 << 30 | ctypes.sizeof(_Scan) << 16 | ord("f") << 8 | 16  # _IOWR('f', 16, struct pm_scan_arg)


def usage(address: int, length: int) -> Usage:
    """Return how many bytes of a range are resident and how many were written to.

    The ioctl takes 0.3 ms for 1.5 GB cached in large folios; smaps would take 10 to 20 ms with torch in the process.
    """
    try:
        return _usage_of()(address, length)
    except OSError:
        return Usage(None, None)


def give_back(address: int, length: int) -> None:
    """Drop the pages of a range, with all writes to them; the next access reads the file again.

    `address` is the start of a page. Raises OSError, as for a range that is not mapped. Source: madvise(2).
    """
    if length and _libc().madvise(address, length, _MADV_DONTNEED):
        raise _error("madvise")


def read_in(memory: mmap.mmap) -> None:
    """Make a whole mapping resident, and read its file into the system's cache.

    An uncached file is read three times as fast as by page faults, and in large folios: giving back 2 GB that page
    faults read in small ones takes 50 ms instead of 1. Raises OSError. Source: madvise(2), MADV_POPULATE_READ.
    """
    _in_large_pieces(memory)
    try:
        _advise(memory, _MADV_POPULATE_READ)
    except OSError as error:
        # Any other error concerns the file itself, and touching its pages would end the process.
        if error.errno != errno.EINVAL:
            raise
        touch(memory)  # before Linux 5.14


def warm(file: Readable) -> None:
    """Read a file that is not empty into the system's cache; at most 32 MiB of it are resident in this process.

    This is as fast as `read_in` and leaves the same large folios; a sequential read takes up to three times as long.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        _in_large_pieces(memory)
        try:
            for begin in range(0, len(memory), _WARMED_AT_ONCE):
                part = (begin, min(_WARMED_AT_ONCE, len(memory) - begin))
                _advise(memory, _MADV_POPULATE_READ, *part)
                _advise(memory, _MADV_DONTNEED, *part)
            return
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
    read_through(file)  # before Linux 5.14


def will_need(address: int, length: int) -> None:
    """Let the system read a range of a file mapping into its cache; no page becomes resident by that.

    `address` is the start of a page. Source: madvise(2), MADV_WILLNEED.
    """
    # In steps, because for one call the kernel reads no more than the device's read-ahead, often 128 KiB.
    for begin in range(0, length, _READ_AHEAD):
        if _libc().madvise(address + begin, min(_READ_AHEAD, length - begin), _MADV_WILLNEED):
            return


def backings() -> Backings:
    """List the file mappings of this process. Source: proc_pid_maps(5)."""
    try:
        with Path("/proc/self/maps").open(encoding="utf-8", errors="replace") as lines:
            return Backings(address_ranges(lines))
    except OSError:
        return Backings()


def address_ranges(lines: Iterable[str]) -> Iterator[AddressRange]:
    """Read the lines of a list of mappings; memory without a file is left out."""
    for line in lines:
        addresses, _, offset, device, inode = line.split(maxsplit=5)[:5]
        if inode != "0":
            start, end = (int(address, 16) for address in addresses.split("-"))
            yield AddressRange(start, end, Backing((device, int(inode)), int(offset, 16)))


def scanned(address: int, length: int) -> Usage:
    """Return the usage from the page tables; raises OSError if the kernel cannot. Source: PAGEMAP_SCAN(2const)."""
    start, end = _whole_pages(address, length)
    regions = (_PageRegion * _REGIONS)()
    resident = written = 0
    descriptor = os.open("/proc/self/pagemap", os.O_RDONLY)
    try:
        while start < end:
            scan = _Scan(size=ctypes.sizeof(_Scan), start=start, end=end, vec=ctypes.addressof(regions))
            scan.vec_len = _REGIONS
            scan.category_anyof_mask = _PAGE_IS_PRESENT | _PAGE_IS_SWAPPED
            scan.return_mask = _PAGE_IS_FILE | _PAGE_IS_PRESENT | _PAGE_IS_SWAPPED
            count = _libc().ioctl(descriptor, _PAGEMAP_SCAN, ctypes.byref(scan))
            if count < 0:
                raise _error("PAGEMAP_SCAN")
            after = scan.walk_end
            for region in regions[:count]:
                size = region.end - region.start
                resident += size if region.categories & _PAGE_IS_PRESENT else 0
                # A page of the file in migration is reported as swapped and as the file's.
                written += 0 if region.categories & _PAGE_IS_FILE else size
                # If the last region of the range fills the vector, `walk_end` is before that region.
                after = max(after, region.end)
            if after <= start:
                raise OSError(errno.EIO, "PAGEMAP_SCAN did not advance")
            start = after
    finally:
        os.close(descriptor)
    return Usage(resident, written)


def listed(address: int, length: int) -> Usage:
    """Return the usage from the list of the process's pages, 8 bytes each; raises OSError.

    Source: proc_pid_pagemap(5).
    """
    import numpy as np

    start, end = _whole_pages(address, length)
    kinds = np.zeros(8, dtype=np.int64)
    descriptor = os.open("/proc/self/pagemap", os.O_RDONLY)
    try:
        while start < end:
            wanted = min(end - start, _PAGES_AT_ONCE * mmap.PAGESIZE) // mmap.PAGESIZE * _ENTRY_BYTES
            os.lseek(descriptor, start // mmap.PAGESIZE * _ENTRY_BYTES, os.SEEK_SET)
            entries = np.frombuffer(os.read(descriptor, wanted), dtype=np.uint64)
            if not len(entries):
                raise OSError(errno.EIO, "the list of pages ends early")
            # The upper three bits mean present, swapped, and of a file.
            kinds += np.bincount((entries >> np.uint64(61)).astype(np.uint8), minlength=8)
            start += len(entries) * mmap.PAGESIZE
    finally:
        os.close(descriptor)
    pages = {kind: int(count) for kind, count in enumerate(kinds)}
    resident = sum(count for kind, count in pages.items() if kind & _PRESENT)
    written = sum(count for kind, count in pages.items() if kind & (_PRESENT | _SWAPPED) and not kind & _OF_A_FILE)
    return Usage(resident * mmap.PAGESIZE, written * mmap.PAGESIZE)


def first_that_works(fast: UsageOf, sure: UsageOf) -> UsageOf:
    """Return `fast` unless a trial on one page shows that this kernel or sandbox lacks it; raises OSError."""
    try:
        fast(0, mmap.PAGESIZE)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return sure
    return fast


@functools.cache
def _usage_of() -> UsageOf:
    return first_that_works(scanned, listed)


def _in_large_pieces(memory: mmap.mmap) -> None:
    """Let the system cache the file of this mapping in huge pages, if it has them."""
    try:
        _advise(memory, _MADV_HUGEPAGE)
    except OSError:
        pass  # the pages are smaller, nothing else


def _advise(memory: mmap.mmap, *advice: int) -> None:
    madvise: Callable[..., None] = getattr(memory, "madvise")  # noqa: B009 - not in mypy's view of Windows
    madvise(*advice)


def _whole_pages(address: int, length: int) -> tuple[int, int]:
    page = mmap.PAGESIZE
    return (address // page * page, -(-(address + length) // page) * page) if length else (address, address)


def _error(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")


@functools.cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p]
    return libc

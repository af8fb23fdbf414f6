"""Pinned memory of our own, which a device reads at the bus's speed and `close` returns to the system."""

from __future__ import annotations

import logging
import mmap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from engine.devices.backends import make_current, module_for
from engine.errors import first_line

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

_PORTABLE: Final = 1
"""cudaHostRegisterPortable: pinned for every device of the process (CUDA Runtime API, memory management)."""


class PinnedMemory:
    """Memory of our own, registered with a device's driver; plain memory if the driver refuses.

    torch's own pinned memory is not used, because torch caches it and never returns it to the system.
    """

    def __init__(self, nbytes: int, device: str) -> None:
        """Allocate `nbytes` of memory and pin them for `device`; raises OSError if the system has too little."""
        import torch

        self.nbytes = nbytes
        self._device = device
        self._memory: mmap.mmap | None = mmap.mmap(-1, nbytes)
        self._tensor: torch.Tensor | None = torch.frombuffer(self._memory, dtype=torch.uint8)
        # On a thread of its own: a refusal stays its last error, and torch would report that for the next kernel.
        with ThreadPoolExecutor(1, thread_name_prefix="engine-pinning") as apart:
            self.pinned = apart.submit(self._register).result()
        """Whether the device can copy from this memory while the host continues."""

    @property
    def tensor(self) -> torch.Tensor:
        """The bytes as a tensor, (n,) uint8, on the CPU; only before `close`."""
        assert self._tensor is not None, "closed"  # noqa: S101 - the owner's promise
        return self._tensor

    @property
    def bytes(self) -> memoryview:
        """The bytes as a writable buffer; only before `close`."""
        assert self._memory is not None, "closed"  # noqa: S101 - the owner's promise
        return memoryview(self._memory)

    def close(self) -> None:
        """Free the memory once the last view of it is gone; no copy from it may be in progress."""
        if self.pinned:
            self.pinned = False
            try:
                with _runtime(self._device) as (module, runtime):
                    module.check_error(int(runtime.cudaHostUnregister(self.tensor.data_ptr())))
            except Exception:  # noqa: BLE001 - the adapter edge: a driver that lost its device may raise anything
                _log.warning("pinned memory could not be unregistered", exc_info=True)
        self._memory = self._tensor = None

    def _register(self) -> bool:
        try:
            with _runtime(self._device) as (module, runtime):
                if runtime is None:
                    return False
                module.check_error(int(runtime.cudaHostRegister(self.tensor.data_ptr(), self.nbytes, _PORTABLE)))
        except Exception as error:  # noqa: BLE001 - the adapter edge: a driver may raise anything
            _say_once(self._device.partition(":")[0], first_line(error))
            return False
        return True


@contextmanager
def _runtime(device: str) -> Iterator[tuple[Any, Any]]:
    """Give the device's module and the CUDA runtime, None without one; no other device gets a context."""
    module = module_for(device)
    if not hasattr(module, "cudart"):
        yield module, None
        return
    with make_current(device):
        yield module, module.cudart()


@cache
def _say_once(kind: str, reason: str) -> None:
    _log.warning("memory is not pinned for %s, so copies to it are slower: %s", kind, reason)

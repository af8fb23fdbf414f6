"""Memory that a device copies from at the bus's speed, and that goes back to the system when we say so."""

from __future__ import annotations

import logging
import mmap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from engine.devices.backends import made_current, module_for
from engine.errors import first_line

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)

_PORTABLE: Final = 1
"""cudaHostRegisterPortable: pinned for every device of the process (CUDA Runtime API, memory management)."""


class PinnedMemory:
    """Bytes of our own, registered with a device's driver; plain memory where that is refused.

    torch's own pinned memory is kept for reuse and never returned to the system, so it is not used.
    """

    def __init__(self, nbytes: int, device: str) -> None:
        """Take `nbytes` of memory and pin them for `device`; raises OSError when the system has no such run."""
        import torch

        self.nbytes = nbytes
        self._device = device
        self._memory: mmap.mmap | None = mmap.mmap(-1, nbytes)
        self._tensor: torch.Tensor | None = torch.frombuffer(self._memory, dtype=torch.uint8)
        # Apart: a refusal stays behind as the thread's last error, and torch would blame the next kernel for it.
        with ThreadPoolExecutor(1, thread_name_prefix="engine-pinning") as apart:
            self.pinned = apart.submit(self._register).result()
        """Whether a device can copy from here while the host goes on."""

    @property
    def tensor(self) -> torch.Tensor:
        """Its bytes, (n,) uint8, on the CPU; only before `close`."""
        assert self._tensor is not None, "closed"  # noqa: S101 - the owner's promise
        return self._tensor

    @property
    def bytes(self) -> memoryview:
        """Its bytes, to be read into; only before `close`."""
        assert self._memory is not None, "closed"  # noqa: S101 - the owner's promise
        return memoryview(self._memory)

    def close(self) -> None:
        """Give the memory back as soon as no view of it is left. No copy from it may be on its way."""
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
    """The device's module and the CUDA runtime, None without one; no other device gets a context by using it."""
    module = module_for(device)
    if not hasattr(module, "cudart"):
        yield module, None
        return
    with made_current(device):
        yield module, module.cudart()


@cache
def _say_once(kind: str, reason: str) -> None:
    _log.warning("memory is not pinned for %s, so copies to it are slower: %s", kind, reason)

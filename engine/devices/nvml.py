"""The figures of each GPU from NVML, the monitoring library of NVIDIA's driver."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

_log = logging.getLogger(__name__)

_NOT_AVAILABLE: Final = 2**64 - 1
"""NVML_VALUE_NOT_AVAILABLE: a figure that the driver does not have, as under Windows' driver model."""

_PREFIX: Final = "GPU-"
"""The prefix of a UUID in NVML, which CUDA leaves out."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU at one instant; sizes in bytes, None if NVML has no figure."""

    index: int
    """NVML's number, independent of CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER."""
    name: str
    uuid: str | None
    """Spelled as in CUDA: lower case, no prefix."""
    pci: tuple[int, int, int] | None
    """Domain, bus and device number."""
    total: int | None
    used: int | None
    """Bytes in use, the driver's own reserve included.

    The first version of `nvmlDeviceGetMemoryInfo` is called, whose `used` and `free` add up to the total; the second
    counts the reserve apart, and differently from driver to driver.
    """
    free: int | None
    lists_us: bool | None
    """Whether this process is among those that use the GPU."""
    process: int | None
    """Bytes that this process uses, its context included; also None if the process is not listed."""
    utilisation: float | None


class Nvml:
    """NVML between its start and `stop`, for any thread; a call that NVML refuses gives None."""

    def __init__(self, nvml: Any) -> None:
        """Wrap the module pynvml; `start` imports and starts it."""
        self._nvml = nvml
        # An older or newer binding may lack a call.
        self._refusals = (nvml.NVMLError, nvml.NVMLLibraryMismatchError, AttributeError)

    @classmethod
    def start(cls, level: int = logging.WARNING) -> Nvml | None:
        """Start NVML; return None if there is no working NVIDIA driver, which is logged at `level`."""
        try:
            return cls._started()
        except Exception:  # noqa: BLE001 - the adapter edge: a foreign or broken pynvml, or its driver, may raise anything
            _log.log(level, "NVML does not start, so NVIDIA GPUs are not read", exc_info=True)
            return None

    @classmethod
    def _started(cls) -> Nvml | None:
        try:
            import pynvml
        except ImportError:
            return None
        found = cls(pynvml)
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            _log.debug("no NVIDIA GPU to read: %s", error)
            return None
        return found

    def stop(self) -> None:
        """Shut NVML down."""
        self._ask("nvmlShutdown")

    def read(self) -> tuple[Gpu, ...]:
        """Return the GPUs that answer; one that fell off the bus or denies access is left out."""
        count = self._ask("nvmlDeviceGetCount") or 0
        handles = ((index, self._ask("nvmlDeviceGetHandleByIndex", index)) for index in range(count))
        return tuple(self._gpu(index, handle) for index, handle in handles if handle is not None)

    def used(self, uuid: str) -> int | None:
        """Return the bytes that all programs and the driver use on the GPU with that UUID."""
        handle = self._by_uuid(uuid)
        memory = None if handle is None else self._ask("nvmlDeviceGetMemoryInfo", handle)
        return int(memory.used) if memory else None

    def process(self, uuid: str) -> int | None:
        """Return the bytes that this process uses on the GPU with that UUID; see `Gpu.process`."""
        handle = self._by_uuid(uuid)
        return None if handle is None else _most(self._listed(handle))

    def _by_uuid(self, uuid: str) -> Any:
        return self._ask("nvmlDeviceGetHandleByUUID", f"{_PREFIX}{uuid}")

    def _gpu(self, index: int, handle: Any) -> Gpu:
        memory = self._ask("nvmlDeviceGetMemoryInfo", handle)
        rates = self._ask("nvmlDeviceGetUtilizationRates", handle)
        pci = self._ask("nvmlDeviceGetPciInfo", handle)
        listed = self._listed(handle)
        return Gpu(
            index=index,
            name=_text(self._ask("nvmlDeviceGetName", handle)) or f"GPU {index}",
            uuid=_bare(_text(self._ask("nvmlDeviceGetUUID", handle))),
            pci=(pci.domain, pci.bus, pci.device) if pci else None,
            total=memory.total if memory else None,
            used=memory.used if memory else None,
            free=memory.free if memory else None,
            lists_us=None if listed is None else bool(listed),
            process=_most(listed),
            utilisation=rates.gpu / 100 if rates else None,
        )

    def _listed(self, handle: Any) -> list[int | None] | None:
        """Return this process's bytes from each list that names it; None if neither list is available.

        A process that both computes and draws is in both lists, each time with all its bytes.
        """
        computing = self._ask("nvmlDeviceGetComputeRunningProcesses", handle)
        drawing = self._ask("nvmlDeviceGetGraphicsRunningProcesses", handle)
        if computing is None:
            # A process that draws is still known, but absence from this list does not prove that it does not compute.
            return [_used(drawing)] if drawing and _ours(drawing) else None
        return [_used(processes) for processes in (computing, drawing or ()) if _ours(processes)]

    def _ask(self, question: str, *arguments: Any) -> Any:
        try:
            return getattr(self._nvml, question)(*arguments)
        except self._refusals:
            return None


@contextmanager
def open_nvml() -> Iterator[Nvml | None]:
    """Start NVML for a few calls; NVML counts its starts, so another user of it is not affected.

    None if it does not start, which is logged for debugging only: the regular reader already warns of it.
    """
    nvml = Nvml.start(logging.DEBUG)
    try:
        yield nvml
    finally:
        if nvml is not None:
            nvml.stop()


def _ours(processes: Iterable[Any]) -> list[Any]:
    return [process for process in processes if process.pid == os.getpid()]


def _used(processes: Iterable[Any]) -> int | None:
    """Return the bytes of this process in one list, which may name it once for each part of a divided GPU."""
    used = [process.usedGpuMemory for process in _ours(processes)]
    return None if any(count is None or count == _NOT_AVAILABLE for count in used) else sum(used)


def _most(listed: list[int | None] | None) -> int | None:
    """Return the largest figure of the lists; None if no list names this process or one of them has no figure."""
    if not listed or None in listed:
        return None
    return max(used for used in listed if used is not None)


def _bare(uuid: str | None) -> str | None:
    return None if uuid is None else uuid.lower().removeprefix(_PREFIX.lower())


def _text(answer: str | bytes | None) -> str | None:
    return answer.decode(errors="replace") if isinstance(answer, bytes) else answer

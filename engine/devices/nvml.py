"""What NVML, the monitoring library of NVIDIA's driver, says of each GPU."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

_log = logging.getLogger(__name__)

_NOT_AVAILABLE: Final = 2**64 - 1
"""NVML_VALUE_NOT_AVAILABLE: bytes that the driver does not know, as under Windows' driver model."""

_PREFIX: Final = "GPU-"
"""What NVML writes before a UUID and CUDA does not."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU at one instant; bytes, and None where NVML does not say."""

    index: int
    """NVML's number, which CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER do not touch."""
    name: str
    uuid: str | None
    """As CUDA writes it: in lower case, without a prefix."""
    pci: tuple[int, int, int] | None
    """Domain, bus and device number."""
    total: int | None
    used: int | None
    """With what the driver reserves for itself: `nvmlDeviceGetMemoryInfo` is asked in its first version, whose `used`
    and `free` make up the total; the second counts the reserve apart, but not alike in all drivers."""
    free: int | None
    lists_us: bool | None
    """Whether this process is among those that use the GPU."""
    process: int | None
    """What this process uses, its context included; None too where it is not listed."""
    utilisation: float | None


class Nvml:
    """NVML for as long as it is started; every answer it refuses becomes None. Any thread may ask."""

    def __init__(self, nvml: Any) -> None:
        """Take the module pynvml; `start` finds and starts it."""
        self._nvml = nvml
        # An older or newer binding may lack a call.
        self._refusals = (nvml.NVMLError, nvml.NVMLLibraryMismatchError, AttributeError)

    @classmethod
    def start(cls, level: int = logging.WARNING) -> Nvml | None:
        """Start NVML, or return None where there is no NVIDIA driver, or none that works; that is logged at `level`."""
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
        """Return the GPUs that answer; one that fell off the bus or may not be asked is left out."""
        count = self._ask("nvmlDeviceGetCount") or 0
        handles = ((index, self._ask("nvmlDeviceGetHandleByIndex", index)) for index in range(count))
        return tuple(self._gpu(index, handle) for index, handle in handles if handle is not None)

    def used(self, uuid: str) -> int | None:
        """Return the bytes that all programs and the driver use of the GPU of that UUID."""
        handle = self._by_uuid(uuid)
        memory = None if handle is None else self._ask("nvmlDeviceGetMemoryInfo", handle)
        return int(memory.used) if memory else None

    def process(self, uuid: str) -> int | None:
        """Return the bytes that this process uses of the GPU of that UUID, its context included; see `Gpu.process`."""
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
        """What this process uses by each list that names it, None where neither list can be had.

        A process that computes and draws stands in both, each time with all that it uses.
        """
        computing = self._ask("nvmlDeviceGetComputeRunningProcesses", handle)
        drawing = self._ask("nvmlDeviceGetGraphicsRunningProcesses", handle)
        if computing is None:
            # Who only draws may be known all the same, but not who does not compute.
            return [_used(drawing)] if drawing and _ours(drawing) else None
        return [_used(found) for found in (computing, drawing or ()) if _ours(found)]

    def _ask(self, question: str, *arguments: Any) -> Any:
        try:
            return getattr(self._nvml, question)(*arguments)
        except self._refusals:
            return None


@contextmanager
def opened() -> Iterator[Nvml | None]:
    """Start NVML for a question or two; NVML counts its starts, so whoever else started it keeps it.

    None where it does not start, which only the log's details tell: whoever reads all the time warns of it.
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
    """The bytes of this process in one list; it may stand there once for each part of a divided GPU."""
    used = [process.usedGpuMemory for process in _ours(processes)]
    return None if any(count is None or count == _NOT_AVAILABLE for count in used) else sum(used)


def _most(listed: list[int | None] | None) -> int | None:
    """The most that one list says, None where this process is in no list or one of them does not say."""
    if not listed or None in listed:
        return None
    return max(used for used in listed if used is not None)


def _bare(uuid: str | None) -> str | None:
    return None if uuid is None else uuid.lower().removeprefix(_PREFIX.lower())


def _text(answer: str | bytes | None) -> str | None:
    return answer.decode(errors="replace") if isinstance(answer, bytes) else answer

"""The memory of one device and torch's part of it, read without importing torch or creating a context."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from engine.devices.backends import devices_in_use, has_context, module_in_use, number_of
from engine.devices.driver import free_and_total, used_by_this_process, uuid_of
from engine.devices.placement import CPU

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """One device's memory at one instant, in bytes, None if unknown."""

    device: str
    """torch's name of the device."""
    free: int | None
    total: int | None
    ours: int | None
    """Bytes that torch's allocator holds for this process, in use and cached; without the context."""
    shared: bool = False
    """Whether it is the system's memory: then `free` is the available RAM and `total` all of it."""

    @property
    def others(self) -> int | None:
        """Bytes neither free nor in our allocator: other programs, the driver and this process's own context."""
        if self.free is None or self.total is None or self.ours is None:
            return None
        return max(0, self.total - self.free - self.ours)


@dataclass(frozen=True, slots=True)
class Allocated:
    """A device on which this process has a context, with its identity beyond torch's name."""

    memory: DeviceMemory
    name: str
    uuid: str | None = None
    """Spelled as in CUDA: lower case, no prefix."""
    pci: tuple[int, int, int] | None = None
    """Domain, bus and device number."""


def memory(device: str) -> DeviceMemory | None:
    """Return the memory of `device` as the driver and torch report it now; None for a CPU.

    Before torch has used the device's kind, only `ours` is known, and 0.
    """
    return None if device == CPU else _memory_of(device)


def context(device: str) -> int | None:
    """Return the bytes that this process uses on `device` beyond torch's allocator: its context and libraries.

    None if the driver does not count per process, or the memory is the system's. Slow compared with `memory`.
    """
    if device == CPU or not has_context(device):
        return 0
    held = _memory_of(device)
    if held.shared or held.ours is None:
        return None
    used = None
    with _if_it_answers(device):
        used = used_by_this_process(module_in_use(device), number_of(device))
    # A figure below torch's belongs to a process outside the container with our number, or to another instant.
    return None if used is None or used < held.ours else used - held.ours


def allocated() -> tuple[Allocated, ...]:
    """Return every device on which this process has a context; none before torch is imported."""
    devices: list[Allocated] = []
    with _if_it_answers("torch"):
        devices.extend([_allocated_on(device) for device in devices_in_use()])
    return tuple(devices)


@contextmanager
def _if_it_answers(whom: str) -> Iterator[None]:
    """Log and drop any error of a lost card or its driver, so that the figure stays unknown."""
    try:
        yield
    except Exception:  # noqa: BLE001 - the adapter edge: a card may be lost, a driver may raise anything
        _log.debug("%s does not answer", whom, exc_info=True)


def _memory_of(device: str) -> DeviceMemory:
    module, number = module_in_use(device), number_of(device)
    free = total = ours = None
    shared = device == "mps"
    with _if_it_answers(device):
        started = has_context(device)
        ours = _reserved(module, device) if started else 0
        if module is not None and not shared:
            shared = bool(getattr(module.get_device_properties(number), "is_integrated", False))
            free, total = (None, None) if shared else free_and_total(module, number, started=started)
    if shared:
        import psutil

        system = psutil.virtual_memory()
        free, total = system.available, system.total
    return DeviceMemory(device, free, total, ours, shared)


def _reserved(module: Any, device: str) -> int:
    return int(module.driver_allocated_memory() if device == "mps" else module.memory_reserved(number_of(device)))


def _allocated_on(device: str) -> Allocated:
    held = _memory_of(device)
    if device == "mps":
        return Allocated(held, "Apple GPU")
    properties = None
    with _if_it_answers(device):
        properties = module_in_use(device).get_device_properties(number_of(device))
    if properties is None:
        return Allocated(held, device)
    domain, bus, slot = (getattr(properties, f"pci_{part}_id", None) for part in ("domain", "bus", "device"))
    return Allocated(
        held,
        name=str(getattr(properties, "name", device)),
        uuid=uuid_of(properties),
        pci=None if domain is None or bus is None or slot is None else (domain, bus, slot),
    )

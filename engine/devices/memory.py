"""How much memory a device has and what torch holds of it; looking never imports torch and starts no context."""

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
    """One device's memory at one instant, in bytes; None where nobody says."""

    device: str
    """torch's name of the device."""
    free: int | None
    total: int | None
    ours: int | None
    """What torch's allocator has from the driver for this process, living and kept for later; without the context."""
    shared: bool = False
    """Whether it is the system's memory: then `free` and `total` are the RAM that is available and all of it."""

    @property
    def others(self) -> int | None:
        """Neither free nor in our allocator: other programs, the driver and this process's own context."""
        if self.free is None or self.total is None or self.ours is None:
            return None
        return max(0, self.total - self.free - self.ours)


@dataclass(frozen=True, slots=True)
class Allocated:
    """A device on which this process has a context, and what tells it from others whatever torch calls it."""

    memory: DeviceMemory
    name: str
    uuid: str | None = None
    """As CUDA writes it: in lower case, without a prefix."""
    pci: tuple[int, int, int] | None = None
    """Domain, bus and device number."""


def memory(device: str) -> DeviceMemory | None:
    """Return what the driver and torch say of `device` now; None for a CPU.

    Nothing is known of a device whose kind torch has not used yet, but that nothing on it is ours.
    """
    return None if device == CPU else _memory_of(device)


def context(device: str) -> int | None:
    """Return what this process uses of `device` beyond torch's allocator, in bytes: its context, the libraries' own.

    None where the driver does not tell what a process uses, or the memory is the system's. Slow beside `memory`.
    """
    if device == CPU or not has_context(device):
        return 0
    held = _memory_of(device)
    if held.shared or held.ours is None:
        return None
    used = None
    with _if_it_answers(device):
        used = used_by_this_process(module_in_use(device), number_of(device))
    # Less than torch has is a namesake's from outside a container, or a figure from another instant.
    return None if used is None or used < held.ours else used - held.ours


def allocated() -> tuple[Allocated, ...]:
    """Return every device on which this process has a context; none while torch is not there or has not used one."""
    found: list[Allocated] = []
    with _if_it_answers("torch"):
        found.extend([_allocated_on(device) for device in devices_in_use()])
    return tuple(found)


@contextmanager
def _if_it_answers(whom: str) -> Iterator[None]:
    """Take whatever a lost card or its driver raises for an answer that was not given."""
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

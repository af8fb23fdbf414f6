"""The driver's figures of a device's memory, read without creating a context there."""

from __future__ import annotations

import logging
from typing import Any

from engine.devices.nvml import open_nvml

_log = logging.getLogger(__name__)


def free_and_total(module: Any, number: int, *, started: bool) -> tuple[int, int]:
    """Return the free and the total bytes of a device; `started` means that this process has a context there.

    Without a context the device's properties and NVML are read, because torch's own call would create one. Raises
    their errors.
    """
    if started:
        free, total = module.mem_get_info(number)
        return int(free), int(total)
    properties = module.get_device_properties(number)
    total = int(properties.total_memory)
    used = None
    if uuid := uuid_of(properties):
        # By UUID, because torch would go by number, and NVML numbers GPUs by bus, CUDA with the fastest first.
        with open_nvml() as nvml:
            used = nvml.used(uuid) if nvml else None
    if used is None:
        used = int(module.device_memory_used(number))
    return max(0, total - used), total


def free_without_context(module: Any, number: int) -> int:
    """Return the free bytes of a device, 0 if unknown; creates no context if torch can avoid it."""
    try:
        return free_and_total(module, number, started=not hasattr(module, "device_memory_used"))[0]
    except Exception:  # noqa: BLE001 - the adapter edge: NVML, its binding or the driver may be missing
        _log.warning("the free memory of device %d is not known", number, exc_info=True)
        return 0


def used_by_this_process(module: Any, number: int) -> int | None:
    """Return the bytes that the driver counts for this process on a device, its context included.

    None if NVML is missing, under Windows' driver model, and in a container with its own process numbers. NVML lists
    all processes for it, which is slow compared with `free_and_total`.
    """
    uuid = uuid_of(module.get_device_properties(number))
    if uuid is None:
        return None
    with open_nvml() as nvml:
        return nvml.process(uuid) if nvml else None


def uuid_of(properties: Any) -> str | None:
    """Return the UUID from torch's properties of a device, spelled as in CUDA: lower case, no prefix."""
    uuid = getattr(properties, "uuid", None)
    return str(uuid).lower() if uuid else None

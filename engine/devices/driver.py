"""What a device's driver says of its memory, asked in a way that starts no context there."""

from __future__ import annotations

import logging
from typing import Any

from engine.devices.nvml import opened

_log = logging.getLogger(__name__)


def free_and_total(module: Any, number: int, *, started: bool) -> tuple[int, int]:
    """Return the free and all bytes of a device; `started` says whether this process has a context there already.

    Asking the driver through torch would start one; its properties and NVML do not. Raises what they raise.
    """
    if started:
        free, total = module.mem_get_info(number)
        return int(free), int(total)
    properties = module.get_device_properties(number)
    total = int(properties.total_memory)
    used = None
    if uuid := uuid_of(properties):
        # torch would ask NVML by number. But NVML counts by bus, and CUDA puts the fastest GPU first.
        with opened() as nvml:
            used = nvml.used(uuid) if nvml else None
    if used is None:
        used = int(module.device_memory_used(number))
    return max(0, total - used), total


def free_without_context(module: Any, number: int) -> int:
    """Return the free bytes of a device, found without starting a context on it where torch can; 0 if nobody says."""
    try:
        return free_and_total(module, number, started=not hasattr(module, "device_memory_used"))[0]
    except Exception:  # noqa: BLE001 - the adapter edge: NVML, its binding or the driver may be missing
        _log.warning("the free memory of device %d is not known", number, exc_info=True)
        return 0


def used_by_this_process(module: Any, number: int) -> int | None:
    """Return what the driver counts for this process on a device, its context included, in bytes.

    None where NVML does not say: without it, under Windows' driver model, in a container with process numbers of its
    own. It lists all processes for the answer, which is slow beside `free_and_total`.
    """
    uuid = uuid_of(module.get_device_properties(number))
    if uuid is None:
        return None
    with opened() as nvml:
        return nvml.process(uuid) if nvml else None


def uuid_of(properties: Any) -> str | None:
    """Return the UUID among torch's properties of a device, as CUDA writes it: in lower case, without a prefix."""
    uuid = getattr(properties, "uuid", None)
    return str(uuid).lower() if uuid else None

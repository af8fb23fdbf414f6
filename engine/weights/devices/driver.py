"""What a device's driver says of its memory, asked in a way that starts no context there."""

from __future__ import annotations

import logging
from typing import Any

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
    uuid = getattr(properties, "uuid", None)
    used = _used_by_uuid(str(uuid)) if uuid else None
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


def _used_by_uuid(uuid: str) -> int | None:
    """What all programs use of an NVIDIA GPU, None where NVML does not say.

    torch would ask NVML by number. But NVML counts by bus, and CUDA puts the fastest GPU first.
    """
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        try:
            return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")).used)
        finally:
            pynvml.nvmlShutdown()
    except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError) as error:
        _log.debug("NVML does not know the GPU %s: %s", uuid, error)
        return None

"""What torch's allocator of device memory is told: how much it may hold, and when to give back what it keeps."""

from __future__ import annotations

import logging
import math

from engine.devices.backends import has_context, made_current, module_for, number_of
from engine.devices.placement import CPU

_log = logging.getLogger(__name__)


def empty_cache(device: str) -> None:
    """Return the device memory that torch holds for later to the driver; nothing to do where nothing was used.

    Raises what a lost device raises.
    """
    if device != CPU and has_context(device):
        with made_current(device):
            module_for(device).empty_cache()


def limit(device: str, nbytes: int | None) -> bool:
    """Let torch's allocator hold at most `nbytes` on `device`, None = all it has; what is held already stays.

    Returns whether it is so now. A CPU, mps (which counts by another measure), and a backend without such a call can
    have no limit.
    """
    try:
        if device in (CPU, "mps") or (nbytes is None and not has_context(device)):
            return nbytes is None
        module = module_for(device)
        if not hasattr(module, "set_per_process_memory_fraction"):
            return nbytes is None
        total = int(module.get_device_properties(number_of(device)).total_memory)
        # torch would leave the device the calling thread's own.
        with made_current(device):
            module.set_per_process_memory_fraction(_fraction(nbytes, total), number_of(device))
    except Exception:  # noqa: BLE001 - the adapter edge: a lost card must not stop those who look after the others
        _log.warning("the memory of %s could not be limited", device, exc_info=True)
        return False
    return True


def _fraction(nbytes: int | None, total: int) -> float:
    """The share of `total` that gives `nbytes` again once torch has multiplied and dropped what follows the point."""
    if nbytes is None or nbytes >= total:
        return 1.0
    fraction = max(0, nbytes) / total
    return fraction if int(fraction * total) >= nbytes else math.nextafter(fraction, 1.0)

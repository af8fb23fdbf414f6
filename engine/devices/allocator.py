"""torch's allocator of device memory: its limit, and the release of its cache."""

from __future__ import annotations

import logging
import math

from engine.devices.backends import has_context, make_current, module_for, number_of
from engine.devices.placement import CPU

_log = logging.getLogger(__name__)


def empty_cache(device: str) -> None:
    """Return the device memory that torch caches to the driver; do nothing on a device without a context.

    Raises torch's own error if the device is lost.
    """
    if device != CPU and has_context(device):
        with make_current(device):
            module_for(device).empty_cache()


def limit(device: str, nbytes: int | None) -> bool:
    """Limit torch's allocator to `nbytes` on `device`, None = no limit; memory that it already holds stays.

    Returns whether that is now in force. No limit can be set on a CPU, on mps (whose call counts by another measure),
    and on a backend without such a call.
    """
    try:
        if device in (CPU, "mps") or (nbytes is None and not has_context(device)):
            return nbytes is None
        module = module_for(device)
        if not hasattr(module, "set_per_process_memory_fraction"):
            return nbytes is None
        total = int(module.get_device_properties(number_of(device)).total_memory)
        # The call would otherwise leave `device` as the current one of the calling thread.
        with make_current(device):
            module.set_per_process_memory_fraction(_fraction(nbytes, total), number_of(device))
    except Exception:  # noqa: BLE001 - the adapter edge: a lost card must not stop the limits of the others
        _log.warning("the memory of %s could not be limited", device, exc_info=True)
        return False
    return True


def _fraction(nbytes: int | None, total: int) -> float:
    """Return the share of `total` that is `nbytes` again after torch multiplies and truncates."""
    if nbytes is None or nbytes >= total:
        return 1.0
    fraction = max(0, nbytes) / total
    return fraction if int(fraction * total) >= nbytes else math.nextafter(fraction, 1.0)

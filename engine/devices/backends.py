"""torch's backend modules, one per kind of device, and whether this process has used them.

Only `module_for` imports torch.
"""

from __future__ import annotations

import logging
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

_log = logging.getLogger(__name__)

_KINDS: Final = ("cuda", "xpu", "mps")
"""The kinds of devices built into torch; an out-of-tree backend registers its own name."""


def module_for(device: str) -> Any:
    """Return torch's module for the device's kind, such as torch.cuda."""
    import torch

    return torch.get_device_module(device.partition(":")[0])


def module_in_use(device: str) -> Any:
    """Return torch's module for the device's kind; None if torch is not imported or has not used that kind."""
    module = getattr(sys.modules.get("torch"), device.partition(":")[0], None)
    if module is None:
        return None
    try:
        # torch.mps cannot say whether it was used, and its calls cost nothing.
        used = module.is_initialized() if hasattr(module, "is_initialized") else module.is_available()
    except Exception:  # noqa: BLE001 - the adapter edge: another thread may still be importing torch
        _log.debug("whether %s was used is not known", device, exc_info=True)
        return None
    return module if used else None


def make_current(device: str) -> AbstractContextManager[object]:
    """Return a context manager that makes `device` the thread's current one, without a context on any other.

    A call that names no device goes to the thread's current one, at first device 0, and creates a context of hundreds
    of MiB there. So does leaving a stream of another device.
    """
    module = module_for(device)
    return module.device(device) if hasattr(module, "device") else nullcontext()


def number_of(device: str) -> int:
    """Return the N of `cuda:N`; 0 if the name has no number."""
    return int(device.partition(":")[2] or 0)


def has_context(device: str) -> bool:
    """Whether this process has a context on `device`, according to torch; the call creates none."""
    if module_in_use(device) is None:
        return False
    ask = getattr(sys.modules["torch"]._C, "_cuda_hasPrimaryContext", None)
    return ask is None or not device.startswith("cuda") or bool(ask(number_of(device)))


def devices_in_use() -> list[str]:
    """Return torch's name of every device on which this process has a context.

    Raises torch's own error if a card is lost.
    """
    devices = []
    for kind in (*_KINDS, *_foreign_kind()):
        module = module_in_use(kind)
        count = int(module.device_count()) if module is not None else 0
        devices += ["mps"] * count if kind == "mps" else [f"{kind}:{number}" for number in range(count)]
    return [device for device in devices if has_context(device)]


def _foreign_kind() -> tuple[str, ...]:
    """Return the name of the out-of-tree backend, if one is registered."""
    torch = sys.modules.get("torch")
    try:
        name = str(torch._C._get_privateuse1_backend_name()) if torch is not None else ""
    except AttributeError:
        return ()
    return (name,) if name else ()

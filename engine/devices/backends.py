"""torch's modules for kinds of devices, and which of them this process has used; only `module_for` imports torch."""

from __future__ import annotations

import logging
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

_log = logging.getLogger(__name__)

_KINDS: Final = ("cuda", "xpu", "mps")
"""The kinds of devices that torch knows by itself; a backend from elsewhere has a name of its own."""


def module_for(device: str) -> Any:
    """Return the module of torch that speaks for the device's kind, such as torch.cuda."""
    import torch

    return torch.get_device_module(device.partition(":")[0])


def module_in_use(device: str) -> Any:
    """Return the module for the device's kind where torch is there and has used that kind, else None."""
    module = getattr(sys.modules.get("torch"), device.partition(":")[0], None)
    if module is None:
        return None
    try:
        # torch.mps does not tell whether it was used; asking it costs nothing.
        used = module.is_initialized() if hasattr(module, "is_initialized") else module.is_available()
    except Exception:  # noqa: BLE001 - the adapter edge: another thread may still be importing torch
        _log.debug("whether %s was used is not known", device, exc_info=True)
        return None
    return module if used else None


def made_current(device: str) -> AbstractContextManager[object]:
    """Make `device` this thread's own for a while; none but it gets a context by that.

    A call that names no device is made on the thread's own, the first one at the beginning, and starts a context of
    hundreds of MiB there. So does leaving a stream of another device.
    """
    module = module_for(device)
    return module.device(device) if hasattr(module, "device") else nullcontext()


def number_of(device: str) -> int:
    """Return the N of `cuda:N`; 0 without one."""
    return int(device.partition(":")[2] or 0)


def has_context(device: str) -> bool:
    """Whether this process has a context on `device`, as far as torch knows; asking starts none."""
    if module_in_use(device) is None:
        return False
    ask = getattr(sys.modules["torch"]._C, "_cuda_hasPrimaryContext", None)
    return ask is None or not device.startswith("cuda") or bool(ask(number_of(device)))


def devices_in_use() -> list[str]:
    """Return torch's name of every device on which this process has a context. Raises what a lost card raises."""
    found = []
    for kind in (*_KINDS, *_foreign_kind()):
        module = module_in_use(kind)
        count = int(module.device_count()) if module is not None else 0
        found += ["mps"] * count if kind == "mps" else [f"{kind}:{number}" for number in range(count)]
    return [device for device in found if has_context(device)]


def _foreign_kind() -> tuple[str, ...]:
    """The name of a backend from elsewhere, where one is registered."""
    torch = sys.modules.get("torch")
    try:
        name = str(torch._C._get_privateuse1_backend_name()) if torch is not None else ""
    except AttributeError:
        return ()
    return (name,) if name else ()

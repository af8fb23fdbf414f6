"""The choice of the device on which a model computes: requested, present, and tested."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from engine.devices.backends import module_for
from engine.devices.driver import free_without_context
from engine.devices.out_of_memory import out_of_memory_on
from engine.devices.placement import CPU
from engine.errors import OutOfMemory, first_line

_log = logging.getLogger(__name__)

_AUTOMATIC: Final = ("cuda", "mps")
"""The kinds that `auto` tries, in this order, before it takes the CPU."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A device that works, by torch's name, and the reason if it is not the requested one."""

    device: str
    reason: str | None = None


def choose(wanted: str) -> Choice:
    """Return the device for `wanted`: auto | cpu | a kind (cuda, mps) | a kind and its number (cuda:1).

    Of several devices of a kind it is the one with the most free memory. If the device is missing, or a tiny
    computation on it fails, it is the CPU, with the reason; if `auto` finds none, the CPU without a reason.
    """
    kind, _, number = wanted.partition(":")
    if kind == CPU:
        return Choice(CPU)
    devices = [device for name in (_AUTOMATIC if wanted == "auto" else (kind,)) for device in _devices(name)]
    if number:
        devices = [device for device in devices if device == wanted]
    failures = []
    for device in devices:
        failure = probe(device)
        if failure is None:
            return Choice(device)
        failures.append(f"{device} does not compute: {failure}")
        _log.warning("%s", failures[-1])
    if failures:
        return Choice(CPU, f"It computes on the CPU, because {'; '.join(failures)}.")
    if wanted == "auto":
        return Choice(CPU)
    return Choice(CPU, f"It computes on the CPU, because torch {_torch().__version__} finds no {wanted} here.")


def _devices(kind: str) -> Iterator[str]:
    """Return the devices of a kind, the one with the most free memory first."""
    try:
        module = module_for(kind)
        count = int(module.device_count())
    except (RuntimeError, AttributeError):
        return
    if kind == "mps":
        yield from ["mps"] * count
        return
    numbers = list(range(count))
    if count > 1:
        numbers.sort(key=lambda number: -free_without_context(module, number))
    yield from (f"{kind}:{number}" for number in numbers)


def probe(device: str) -> str | None:
    """Run a tiny computation; return the failure in words, as of an old driver or a card that fell off the bus.

    None if it worked, or if the device was only out of memory.
    """
    torch = _torch()
    try:
        with out_of_memory_on(device):
            total = (torch.ones(8, device=device) + 1).sum().item()
    except OutOfMemory:
        # The memory may be held by encoders that can step down, or only for a while: placing one there checks it again.
        return None
    except Exception as error:  # noqa: BLE001 - the adapter edge: a driver may raise anything
        return first_line(error)
    return None if total == 16 else f"1 + 1, eight times, is {total:g} there"


def _torch() -> Any:
    import torch

    return torch

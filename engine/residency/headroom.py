"""How much of a device is left for our weights now: by the device, by the settings, beside other programs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Protocol

from engine.devices import DeviceMemory
from engine.settings.budget import Budget

FOR_BATCHES: Final = 8
"""One part in so many is left to what a batch computes."""


class Gauge(Protocol):
    """What has to be known of devices."""

    def memory(self, device: str) -> DeviceMemory | None:
        """Return what is free on a device, and how much of it is ours."""

    def context(self, device: str) -> int | None:
        """Return what this process uses there beyond its allocator, None where nobody says; slow beside `memory`."""

    def limit(self, device: str, nbytes: int | None) -> bool:
        """Let our allocator hold at most so many bytes there, None = no limit; returns whether it does."""

    def empty_cache(self, device: str) -> None:
        """Give back what our allocator keeps there for later."""


class Headroom:
    """Asks the device anew for every answer, in bytes; what nobody can say limits nothing."""

    def __init__(self, gauge: Gauge) -> None:
        self.budget = Budget()
        """The settings' limits; may be swapped at any time."""
        self._gauge = gauge
        self._lock = threading.Lock()  # guards the next two: what torch was told and what is noted of it agree
        self._limited: set[str] = set()
        self._closed = False

    def known(self, device: str) -> bool:
        """Whether anybody says what is free there."""
        memory = self._gauge.memory(device)
        return memory is not None and memory.free is not None

    def available(self, device: str) -> int | None:
        """Return what could be taken now, None where neither the settings nor the device limit it."""
        memory = self._gauge.memory(device)
        limits = [] if memory is None or memory.free is None else [memory.free]
        allowance = self._allowance(device, memory)
        if allowance is not None:
            limits.append(allowance - _ours(memory))
        return max(0, min(limits)) if limits else None

    def lack(self, device: str, wanted: int) -> int:
        """Return how much of `wanted` there is no room for, 0 or less where it fits."""
        available = self.available(device)
        return 0 if available is None else wanted - available

    def forbidden(self, device: str, wanted: int) -> bool:
        """Whether the budget, and not the device alone, stands against taking `wanted` more."""
        memory = self._gauge.memory(device)
        allowance = self._allowance(device, memory)
        return allowance is not None and _ours(memory) + wanted > allowance

    def enforce_budget(self, device: str) -> int:
        """Let torch itself refuse more than the budget, batches included; returns what we hold beyond it already."""
        memory = self._gauge.memory(device)
        allowance = self._allowance(device, memory)
        held = _ours(memory)
        if allowance is None or held <= allowance:
            self._hold_to(device, allowance)
            return 0
        # What may not leave, because it is pinned or in use, must be able to compute.
        self._hold_to(device, held + held // FOR_BATCHES)
        return held - allowance

    def lack_of_others(self, device: str, kept_free: int) -> int:
        """Return what other programs' use leaves too little of, of the `kept_free` that shall stay free for them.

        It is never more than they use: what we alone fill is nobody else's need.
        """
        memory = self._gauge.memory(device)
        if memory is None or memory.free is None:
            return 0
        lack, others = kept_free - memory.free, memory.others
        if lack > 0 and others:
            # Our own context, hundreds of MiB, is among them. Only now it is worth the time to ask for it.
            others -= self._gauge.context(device) or 0
        return max(0, lack if others is None else min(lack, others))

    def confirmed(self, measure: Callable[[str], int], device: str) -> int:
        """Measure, and where something is short once more without what torch only keeps for later.

        Nobody moves for the sake of one reading.
        """
        if measure(device) <= 0:
            return 0
        self.trim(device)
        return max(0, measure(device))

    def trim(self, device: str) -> None:
        """Give back what torch only keeps for later."""
        self._gauge.empty_cache(device)

    def close(self) -> None:
        """Lift the limits that torch was given: they are the process's, and another engine may follow."""
        with self._lock:
            self._closed = True  # a request that still ends must set no limit again
        for device in tuple(self._limited):
            self._hold_to(device, None)

    def _allowance(self, device: str, memory: DeviceMemory | None) -> int | None:
        return self.budget.allowance(device, memory.free if memory else None, _ours(memory))

    def _hold_to(self, device: str, allowance: int | None) -> None:
        with self._lock:
            if allowance is None and device not in self._limited:
                return
            if allowance is not None and self._closed:
                return
            self._limited.add(device)
            if self._gauge.limit(device, allowance) and allowance is None:
                self._limited.discard(device)


def _ours(memory: DeviceMemory | None) -> int:
    return (memory.ours or 0) if memory else 0

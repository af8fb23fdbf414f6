"""The bytes of a device that are left for our weights: by the device, by the settings, beside other programs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from engine.devices import DeviceMemory
from engine.settings.budget import Budget

FOR_BATCHES: Final = 8
"""The part of the memory that is left to batches: one in this number."""


class Gauge(Protocol):
    """The measurements of devices, as the headroom takes them."""

    def memory(self, device: str) -> DeviceMemory | None:
        """Return the free bytes of a device, and those of our allocator."""

    def context(self, device: str) -> int | None:
        """Return the bytes of this process beyond its allocator, None where unknown; slow beside `memory`."""

    def limit(self, device: str, nbytes: int | None) -> bool:
        """Limit our allocator to `nbytes` there, None = no limit; returns whether the limit is in force."""

    def empty_cache(self, device: str) -> None:
        """Give back the bytes that our allocator keeps there for later."""


@dataclass(frozen=True, slots=True)
class Holding:
    """One reading of the bytes that our allocator holds on a device, and of those that the budget allows it."""

    device: str
    held: int
    allowance: int | None
    """None where no budget limits them."""

    @property
    def excess(self) -> int:
        """Bytes beyond the budget, 0 for none."""
        return 0 if self.allowance is None else max(0, self.held - self.allowance)


class Headroom:
    """Measures the device for every answer, in bytes; an unknown figure limits nothing."""

    def __init__(self, gauge: Gauge) -> None:
        self.budget = Budget()
        """The settings' limits; may be swapped at any time."""
        self._gauge = gauge
        self._lock = threading.Lock()  # guards the next two, so that the limits in torch and those noted here agree
        self._limited: set[str] = set()
        self._closed = False

    def is_measured(self, device: str) -> bool:
        """Return whether the free bytes of a device can be measured."""
        memory = self._gauge.memory(device)
        return memory is not None and memory.free is not None

    def available(self, device: str) -> int | None:
        """Return the bytes that could be taken now, None where neither the settings nor the device limit them."""
        memory = self._gauge.memory(device)
        limits = [] if memory is None or memory.free is None else [memory.free]
        allowance = self._allowance(device, memory)
        if allowance is not None:
            limits.append(allowance - _ours(memory))
        return max(0, min(limits)) if limits else None

    def shortfall(self, device: str, wanted: int) -> int:
        """Return the part of `wanted` bytes that there is no room for, 0 or less where they fit."""
        available = self.available(device)
        return 0 if available is None else wanted - available

    def exceeds_budget(self, device: str, wanted: int) -> bool:
        """Return whether taking `wanted` more bytes would exceed the budget, and not the device alone."""
        holding = self.holding(device)
        return holding.allowance is not None and holding.held + wanted > holding.allowance

    def holding(self, device: str) -> Holding:
        """Return the bytes that we hold on a device now, beside those that the budget allows."""
        memory = self._gauge.memory(device)
        return Holding(device, _ours(memory), self._allowance(device, memory))

    def limit_allocator(self, holding: Holding) -> None:
        """Hold torch's allocator to the budget, so that batches keep to it too."""
        limit = holding.allowance
        if holding.excess:
            # Weights that may not leave, because they are pinned or in use, must be able to compute.
            limit = holding.held + holding.held // FOR_BATCHES
        self._hold_to(holding.device, limit)

    def shortfall_for_others(self, device: str, kept_free: int) -> int:
        """Return how many bytes are missing from the `kept_free` that must stay free for other programs.

        It is never more than they use: memory that we alone fill is no other program's need.
        """
        memory = self._gauge.memory(device)
        if memory is None or memory.free is None:
            return 0
        missing, others = kept_free - memory.free, memory.others
        if missing > 0 and others:
            # They include our own context, hundreds of MiB; measuring it is slow, and needed only here.
            others -= self._gauge.context(device) or 0
        return max(0, missing if others is None else min(missing, others))

    def confirmed(self, measure: Callable[[str], int], device: str) -> int:
        """Measure, and where something is short once more without the bytes that torch keeps for later.

        One low reading moves no encoder.
        """
        if measure(device) <= 0:
            return 0
        self.trim(device)
        return max(0, measure(device))

    def trim(self, device: str) -> None:
        """Give back the bytes that torch keeps for later."""
        self._gauge.empty_cache(device)

    def close(self) -> None:
        """Lift the limits of torch's allocator: they are the process's, and another engine may follow."""
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

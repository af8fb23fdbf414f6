"""Who may take how much of a device: reads what is free, makes idle encoders step down, chooses how one goes up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

from engine import policy
from engine.budget import Budget
from engine.config import Hardware
from engine.errors import NoRoom
from engine.placement import CPU, Needs, Placement
from engine.policy import Decision
from engine.state import EncoderView, Shortage
from engine.weights import devices
from engine.weights.devices import DeviceMemory

_log = logging.getLogger(__name__)

_MIB: Final = 1 << 20
_GIB: Final = 1 << 30
_FOR_BATCHES: Final = 8
"""One part in so many of what is free stays free of streamed weights, for what a batch computes."""

_OVER_BUDGET: Final = "over the VRAM budget"

_WHOLE, _STREAMED, _STREAMED_LEAST, _ELSEWHERE = range(4)


class Ladder(Protocol):
    """What the room needs of the engine."""

    def views(self) -> Iterable[EncoderView]:
        """Return a snapshot of every encoder."""

    def apply_decision(self, decision: Decision) -> None:
        """Do what was decided, if its evidence still holds."""


class Gauge(Protocol):
    """What the room needs to know of devices."""

    def memory(self, device: str) -> DeviceMemory | None:
        """Return what is free on a device, and how much of it is ours."""

    def limit(self, device: str, nbytes: int | None) -> None:
        """Let our allocator hold at most so many bytes there, None = no limit."""

    def empty_cache(self, device: str) -> None:
        """Give back what our allocator keeps there for later."""


class Room:
    """Admits encoders to devices, one at a time, and says what is short there.

    No reading is kept from one use to another. The slots ask it on the thread of whoever uses an encoder, the
    offloader on its own.
    """

    def __init__(
        self,
        ladder: Ladder,
        hardware: Hardware,
        clock: Callable[[], float],
        gauge: Gauge = devices,
    ) -> None:
        self._ladder = ladder
        self._clock = clock
        self._gauge = gauge
        self._turn = threading.Lock()
        self._limited: set[str] = set()
        self._ways: dict[str, int] = {}
        """Encoder -> the way in which it went up last."""
        self._first_ways: dict[str, int] = {}
        """Encoder -> the first way to try at its next climb, after a batch that ran out of memory."""
        self.configure(hardware)

    def configure(self, hardware: Hardware) -> None:
        """Put new limits in force; encoders that are over them step down at the offloader's next look."""
        self._hardware = hardware
        self._budget = Budget.parse(hardware.max_vram)

    def close(self) -> None:
        """Lift the limits that torch was given: they are the process's, and another engine may follow."""
        for device in self._limited:
            self._gauge.limit(device, None)
        self._limited.clear()

    # Going up

    def turn(self, device: str) -> AbstractContextManager[object]:
        """Keep others from going up to `device` meanwhile, so that what was planned is still there when it is taken."""
        return nullcontext() if device == CPU else self._turn

    def placements(self, name: str, needs: Needs) -> Iterator[Placement]:
        """Return how an encoder may go up, the best way first; the next one is asked for where memory ran out.

        Asking makes others step down. Raises NoRoom after the last one.
        """
        first = self._first_ways.pop(name, _WHOLE)
        for way, placement in self._ways_up(name, needs, first):
            self._ways[name] = way
            yield placement
        raise self._no_room(name, needs)

    def outgrown(self, name: str, device: str) -> str | None:
        """Say why an encoder that stands on `device` has to come up anew before its next use, None for no reason."""
        if device == CPU or not (excess := self._confirmed(self._excess, device)):
            return None
        self._relieve(Shortage(device, excess, _OVER_BUDGET), spare=name, patient=True)
        view = next((view for view in self._ladder.views() if view.name == name), None)
        if view is None or view.pinned or not self._settled(view) or not self._excess(device):
            return None
        return _OVER_BUDGET

    # When memory ran out

    def clear(self, device: str, *, spare: str) -> None:
        """Make everybody on `device` but `spare` step down who may, at once."""
        everything = Shortage(device, 1 << 62, "an encoder in use ran out of device memory")
        self._relieve(everything, spare=spare, patient=False)
        self._gauge.empty_cache(device)

    def tighten(self, name: str) -> bool:
        """Let the next climb of an encoder begin one way further down, for its batches' sake; False at the end."""
        following = self._ways.get(name, _WHOLE) + 1
        if following > _ELSEWHERE:
            return False
        self._first_ways[name] = following
        return True

    # Looking

    def shortages(self) -> list[Shortage]:
        """Return what is short now on the devices that encoders stand on: over the budget, or too little for others."""
        found = []
        for device in self._in_use():
            if excess := self._confirmed(self._excess, device):
                found.append(Shortage(device, excess, _OVER_BUDGET))
            if (lack := self._confirmed(self._lack_of_others, device)) > excess:
                found.append(Shortage(device, lack, "another program needs VRAM"))
        return found

    def relieve(self, shortage: Shortage) -> None:
        """Make idle encoders step down for `shortage`, longest idle first; those that just came up stay."""
        self._relieve(shortage, spare=None, patient=True)

    @property
    def watching(self) -> bool:
        """Whether something could become short, and be seen to, without any encoder being used."""
        if not (self._hardware.keep_free_vram or self._budget != Budget()):
            return False
        memories = map(self._gauge.memory, self._in_use())
        return any(memory is not None and memory.free is not None for memory in memories)

    # Within

    def _ways_up(self, name: str, needs: Needs, first: int) -> Iterator[tuple[int, Placement]]:
        if needs.device == CPU:
            yield _WHOLE, self._on_cpu(needs, None)
            return
        device, choice = needs.device, self._hardware.on_no_room
        self._hold_to(device, self._allowance(device))
        if first <= _WHOLE and self._make_room(name, device, needs.whole):
            yield _WHOLE, Placement(device)
            # Memory ran out although the weights should fit: once more, with the device to itself.
            self.clear(device, spare=name)
            yield _WHOLE, Placement(device)
        if choice == "stream" and needs.least is not None:
            self._make_room(name, device, needs.whole)
            yield from self._streamed(device, needs, needs.least, first)
        if choice != "error":
            yield _ELSEWHERE, self._on_cpu(needs, self._because(needs))

    def _streamed(self, device: str, needs: Needs, least: int, first: int) -> Iterator[tuple[int, Placement]]:
        available = self._available(device)
        share = needs.whole // 2 if available is None else available - available // _FOR_BATCHES
        if first == _STREAMED:
            # The weights fit, but nothing was left for batches.
            share = min(share, needs.whole // 2)
        if first <= _STREAMED and share > least:
            yield _STREAMED, Placement(device, share)
        if first <= _STREAMED_LEAST and (available is None or available >= least):
            yield _STREAMED_LEAST, Placement(device, least)

    def _on_cpu(self, needs: Needs, reason: str | None) -> Placement:
        if needs.least is None:
            return Placement(CPU, reason=reason)
        allowance = self._budget.allowance(CPU, None, 0) or 0
        return Placement(CPU, None if needs.whole <= allowance else allowance, reason)

    def _make_room(self, name: str, device: str, wanted: int) -> bool:
        """Make others step down until `wanted` bytes are free; returns whether they are, or nobody can say."""
        if self._lack(device, wanted) <= 0:
            return True
        # No plan rests on one reading, and what torch only keeps for later is free after this.
        self._gauge.empty_cache(device)
        if (lack := self._lack(device, wanted)) <= 0:
            return True
        self._relieve(Shortage(device, lack, f"making room for {name}"), spare=name, patient=True)
        if (lack := self._lack(device, wanted)) <= 0:
            return True
        if self._over_budget(device, wanted) <= 0:
            # The device itself is full: that cannot wait until those that just came up have stayed their time.
            self._relieve(Shortage(device, lack, f"making room for {name}"), spare=name, patient=False)
            lack = self._lack(device, wanted)
        return lack <= 0

    def _relieve(self, shortage: Shortage, *, spare: str | None, patient: bool) -> None:
        """Step down for `shortage`; `patient` leaves those that just came up."""
        residency = self._hardware.minimum_residency_seconds if patient else 0.0
        views = self._ladder.views()
        for decision in policy.relieve(
            self._clock(), views, shortage, minimum_residency_seconds=residency, spare=spare
        ):
            self._ladder.apply_decision(decision)

    def _confirmed(self, measure: Callable[[str], int], device: str) -> int:
        """Measure, and where something is short once more without what torch only keeps for later.

        Nobody moves for the sake of one reading.
        """
        if not measure(device):
            return 0
        self._gauge.empty_cache(device)
        return measure(device)

    def _lack(self, device: str, wanted: int) -> int:
        """How many bytes of `wanted` there is no room for, by the budget and by the device itself."""
        memory = self._gauge.memory(device)
        free = memory.free if memory else None
        return max(self._over_budget(device, wanted), 0 if free is None else wanted - free)

    def _over_budget(self, device: str, wanted: int) -> int:
        memory = self._gauge.memory(device)
        allowance = self._allowance(device, memory)
        return 0 if allowance is None else (memory.ours or 0 if memory else 0) + wanted - allowance

    def _available(self, device: str) -> int | None:
        """Bytes that an encoder could take now, None where neither the settings nor the device limit it."""
        memory = self._gauge.memory(device)
        limits = [] if memory is None or memory.free is None else [memory.free]
        allowance = self._allowance(device, memory)
        if allowance is not None:
            limits.append(allowance - ((memory.ours or 0) if memory else 0))
        return max(0, min(limits)) if limits else None

    def _allowance(self, device: str, memory: DeviceMemory | None = None) -> int | None:
        memory = memory or self._gauge.memory(device)
        return self._budget.allowance(device, memory.free if memory else None, (memory.ours or 0) if memory else 0)

    def _hold_to(self, device: str, allowance: int | None) -> None:
        """Let torch itself refuse what is over the budget, batches included."""
        if allowance is not None:
            self._limited.add(device)
        elif device not in self._limited:
            return
        else:
            self._limited.discard(device)
        self._gauge.limit(device, allowance)

    def _excess(self, device: str) -> int:
        """Bytes that we hold beyond the budget."""
        memory = self._gauge.memory(device)
        allowance = self._allowance(device, memory)
        self._hold_to(device, allowance)
        return 0 if memory is None or allowance is None else max(0, (memory.ours or 0) - allowance)

    def _lack_of_others(self, device: str) -> int:
        """Bytes that other programs' use leaves too few of."""
        memory = self._gauge.memory(device)
        if memory is None or memory.free is None or memory.others == 0:
            return 0
        return max(0, int(self._hardware.keep_free_vram * _MIB) - memory.free)

    def _in_use(self) -> list[str]:
        views = self._ladder.views()
        return sorted({view.device for view in views if view.awake and view.device not in (None, CPU)} - {None})

    def _settled(self, view: EncoderView) -> bool:
        residency = self._hardware.minimum_residency_seconds
        return view.came_up_at is None or view.came_up_at + residency <= self._clock()

    def _because(self, needs: Needs) -> str:
        return f"It computes on the CPU, because {needs.device} has no room for its {needs.whole / _GIB:.2f} GiB."

    def _no_room(self, name: str, needs: Needs) -> NoRoom:
        return NoRoom(
            f"{needs.device} has no room for the {needs.whole / _GIB:.2f} GiB of {name}.",
            next_step="Close what else uses the GPU, raise max_vram, or set on_no_room to stream or cpu.",
            retry_in_seconds=1.0,
        )

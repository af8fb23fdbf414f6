"""The owner of the devices' memory: it makes idle encoders step down, and chooses how one goes up."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Final

from engine import devices
from engine.devices.placement import CPU, Needs, Placement
from engine.errors import NoRoom
from engine.residency import policy
from engine.residency.headroom import FOR_BATCHES, Gauge, Headroom
from engine.residency.options import CpuShare, LastPlacement, Mode, Search
from engine.residency.policy import Shortage, Slots
from engine.settings.budget import Budget
from engine.settings.config import Hardware
from engine.state import SlotView, State
from engine.units import MIB, in_words

_UP: Final = frozenset({State.LOADING, State.ON_DEVICE, State.STEPPING_DOWN})
_OVER_BUDGET: Final = "over the VRAM budget"


class Placer:
    """Gives encoders their places, one at a time for each device, and says what is short there.

    No reading is kept from one use to another. Slots call it on the thread of a request, the offloader on its own.
    """

    def __init__(
        self,
        slots: Slots,
        hardware: Hardware,
        clock: Callable[[], float],
        gauge: Gauge = devices,
    ) -> None:
        self._slots = slots
        self._clock = clock
        self._headroom = Headroom(gauge)
        self._exclusive: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._placements: defaultdict[str, LastPlacement] = defaultdict(LastPlacement)
        self._sharing = threading.Lock()  # held while a share of the CPU's allowance is worked out and noted
        self.configure(hardware)

    def configure(self, hardware: Hardware) -> None:
        """Put new limits in force; encoders that are over them step down at the offloader's next look."""
        budget = Budget.parse(hardware.max_vram)
        self._hardware, self._headroom.budget = hardware, budget

    def forget(self, name: str) -> None:
        """Forget an encoder that is gone, or whose name another one has now."""
        self._placements.pop(name, None)

    def close(self) -> None:
        """Lift the limits of torch's allocator."""
        self._headroom.close()

    # Going up

    def exclusive(self, device: str) -> AbstractContextManager[object]:
        """Keep other encoders from going up to `device` meanwhile, so that the room that was made is still there."""
        return nullcontext() if device == CPU else self._exclusive[device]

    def make_room(self, name: str, needs: Needs) -> Iterator[Placement]:
        """Make other encoders step down, and yield one placement after the other, the best first.

        The next one is asked for where memory ran out in the one before. Raises NoRoom after the last one.
        """
        last = self._placements[name]
        start_at, last.start_at = last.start_at, Mode.WHOLE
        last.wanted = last.cpu_share = None
        if needs.device == CPU:
            last.mode = Mode.WHOLE
            yield self._on_cpu(name, last, needs, None)
        else:
            self._headroom.limit_allocator(self._headroom.holding(needs.device))
            search = Search(
                self._headroom,
                make_room=lambda in_part: self._make_room(name, needs.device, needs.whole, in_part=in_part),
                free_device=lambda: self.free_device(needs.device, except_for=name),
                on_cpu=lambda reason: self._on_cpu(name, last, needs, reason),
            )
            for mode, placement in search.modes(needs, self._hardware.on_no_room, start_at, last):
                last.mode = mode
                yield placement
        what = "batches" if start_at > Mode.WHOLE else in_words(needs.whole, decimals=0)
        raise NoRoom(
            f"{needs.device} has no room for the {what} of {name}.",
            next_step="Close what else uses the GPU, raise max_vram, or set on_no_room to stream or cpu.",
            retry_in_seconds=1.0,
        )

    def reclaim(self, name: str, device: str) -> str | None:
        """Make other encoders step down where `device` is over its budget, before a use of the one called `name`.

        Returns the reason why that encoder itself must come up again before the use, None for no reason.
        """
        last = self._placements[name]
        if last.cpu_share is not None and last.cpu_share.allowance != self._allowed_on_cpu():
            return "max_vram for the CPU was changed"
        if last.wanted is None and (device == CPU or not self._headroom.budget):
            return None
        view = next((view for view in self._slots.slots() if view.name == name), None)
        if view is None or self._just_came_up(view):
            return None
        if last.wanted is not None and self._fits_now(last.wanted, view):
            return f"{last.wanted.device} has room for it again"
        if device == CPU:
            return None
        excess = self._excess(device)
        if not excess or view.pinned:
            return None
        self._relieve(Shortage(device, excess, _OVER_BUDGET), spare=name)
        holding = self._headroom.holding(device)
        self._headroom.limit_allocator(holding)
        return _OVER_BUDGET if holding.excess else None

    # When memory ran out

    def free_device(self, device: str, *, except_for: str) -> None:
        """Make every encoder on `device` but `except_for` step down that may, at once."""
        everything = Shortage(device, 1 << 62, "an encoder in use ran out of device memory")
        self._relieve(everything, spare=except_for, patient=False)
        self._headroom.trim(device)

    def use_less(self, name: str) -> bool:
        """Let the next climb of an encoder begin one mode further down, for its batches; False at the end."""
        last = self._placements[name]
        if last.mode is Mode.ON_CPU:
            return False
        last.start_at = Mode(last.mode + 1)
        return True

    # For the offloader

    def shortages(self) -> list[Shortage]:
        """Return what is short on the devices in use: over the budget, or too little free for other programs."""
        found = []
        kept_free = int(self._hardware.keep_free_vram * MIB)
        for device in self._in_use():
            if excess := self._excess(device):
                found.append(Shortage(device, excess, _OVER_BUDGET))
            for_others = partial(self._headroom.shortfall_for_others, kept_free=kept_free)
            if (missing := self._headroom.confirmed(for_others, device)) > excess:
                found.append(Shortage(device, missing, "another program needs VRAM"))
        return found

    def relieve(self, shortage: Shortage) -> None:
        """Make idle encoders step down for `shortage`, longest idle first; those that just came up stay."""
        self._relieve(shortage, spare=None)

    @property
    def watching(self) -> bool:
        """Whether something could become short, and be measured, without any encoder being used."""
        limited = self._hardware.keep_free_vram or self._headroom.budget
        return bool(limited) and any(map(self._headroom.is_measured, self._in_use()))

    # Within

    def _excess(self, device: str) -> int:
        """Hold torch's allocator to the budget, and return the bytes beyond it; those are measured twice.

        Otherwise it takes one reading, since it is on the path of every request.
        """
        holding = self._headroom.holding(device)
        if holding.excess:
            self._headroom.trim(device)
            holding = self._headroom.holding(device)
        self._headroom.limit_allocator(holding)
        return holding.excess

    def _fits_now(self, wanted: Needs, view: SlotView) -> bool:
        held = (view.bytes_on_device or 0) if view.device == wanted.device else 0
        return self._headroom.shortfall(wanted.device, _with_batches(wanted.whole) - held) <= 0

    def _on_cpu(self, name: str, last: LastPlacement, needs: Needs, reason: str | None) -> Placement:
        if needs.least is None:
            return Placement(CPU, reason=reason)
        with self._sharing:
            others = (view.name for view in self._slots.slots() if view.state in _UP and view.name != name)
            shares = [share for other in others if (share := self._placements[other].cpu_share) is not None]
            allowance = self._allowed_on_cpu()
            nbytes = min(needs.whole, max(0, allowance - sum(share.nbytes for share in shares)))
            last.cpu_share = CpuShare(nbytes, allowance)
        return Placement(CPU, None if nbytes == needs.whole else nbytes, reason)

    def _allowed_on_cpu(self) -> int:
        """Bytes that all streamed encoders may keep resident; none without a limit, since streaming must save RAM."""
        return self._headroom.budget.allowance(CPU, None, 0) or 0

    def _make_room(self, name: str, device: str, wanted: int, *, in_part: bool) -> bool:
        """Make others step down until `wanted` bytes are free; returns whether they are, or cannot be measured.

        Where that many cannot come free no encoder moves, unless a part of them helps too.
        """

        def shortfall(device: str) -> int:
            return self._headroom.shortfall(device, wanted)

        missing = self._headroom.confirmed(shortfall, device)
        for patient in (True, False):
            if not missing:
                return True
            if not patient and self._headroom.exceeds_budget(device, wanted):
                # Only for a full device itself do those that just came up leave early.
                return False
            shortage = Shortage(device, missing, f"making room for {name}")
            self._relieve(shortage, spare=name, patient=patient, in_part=in_part)
            missing = max(0, shortfall(device))
        return not missing

    def _relieve(self, shortage: Shortage, *, spare: str | None, patient: bool = True, in_part: bool = True) -> None:
        """Step encoders down for `shortage`; `patient` leaves those that just came up.

        `in_part=False` steps none down unless the whole shortage can be met.
        """
        residency = self._hardware.minimum_residency_seconds if patient else 0.0
        views = list(self._slots.slots())
        decisions = policy.relieve(self._clock(), views, shortage, minimum_residency_seconds=residency, spare=spare)
        leaving = {decision.name for decision in decisions}
        freed = sum(view.bytes_on_device or 0 for view in views if view.name in leaving)
        if not in_part and freed < shortage.nbytes:
            return
        for decision in decisions:
            self._slots.apply_decision(decision)

    def _in_use(self) -> set[str]:
        return {view.device for view in self._slots.slots() if view.awake and view.device} - {CPU}

    def _just_came_up(self, view: SlotView) -> bool:
        residency = self._hardware.minimum_residency_seconds
        return view.came_up_at is not None and view.came_up_at + residency > self._clock()


def _with_batches(nbytes: int) -> int:
    """Weights with what a batch may take beside them."""
    return nbytes + nbytes // FOR_BATCHES

"""Who may stand on a device: makes idle encoders step down, and chooses how one goes up."""

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
from engine.residency.options import Share, Standing, Way
from engine.residency.policy import Ladder
from engine.settings.budget import Budget
from engine.settings.config import Hardware
from engine.state import EncoderView, Shortage, State
from engine.units import MIB, in_words

_UP: Final = frozenset({State.LOADING, State.ON_DEVICE, State.STEPPING_DOWN})
_OVER_BUDGET: Final = "over the VRAM budget"


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
        self._headroom = Headroom(gauge)
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._standings: defaultdict[str, Standing] = defaultdict(Standing)
        self._sharing = threading.Lock()  # held while a share of the CPU's allowance is worked out and noted
        self.configure(hardware)

    def configure(self, hardware: Hardware) -> None:
        """Put new limits in force; encoders that are over them step down at the offloader's next look."""
        budget = Budget.parse(hardware.max_vram)
        self._hardware, self._headroom.budget = hardware, budget

    def forget(self, name: str) -> None:
        """An encoder is gone, or another has taken its name."""
        self._standings.pop(name, None)

    def close(self) -> None:
        """Leave no limit behind."""
        self._headroom.close()

    # Going up

    def turn(self, device: str) -> AbstractContextManager[object]:
        """Keep others from going up to `device` meanwhile, so that what was planned is still there when it is taken."""
        return nullcontext() if device == CPU else self._turns[device]

    def placements(self, name: str, needs: Needs) -> Iterator[Placement]:
        """Return how an encoder may go up, the best way first; the next one is asked for where memory ran out.

        Asking makes others step down. Raises NoRoom after the last one.
        """
        standing = self._standings[name]
        first, standing.first_way = standing.first_way, Way.WHOLE
        standing.displaced = standing.share = None
        for way, placement in self._ways_up(name, standing, needs, first):
            standing.way = way
            yield placement
        what = "batches" if first > Way.WHOLE else in_words(needs.whole)
        raise NoRoom(
            f"{needs.device} has no room for the {what} of {name}.",
            next_step="Close what else uses the GPU, raise max_vram, or set on_no_room to stream or cpu.",
            retry_in_seconds=1.0,
        )

    def misplaced(self, name: str, device: str) -> str | None:
        """Say why an encoder that stands on `device` should come up anew before its next use, None for no reason.

        Over the budget others step down first.
        """
        standing = self._standings[name]
        if standing.share is not None and standing.share.allowance != self._allowed_on_cpu():
            return "max_vram for the CPU was changed"
        wanted = standing.displaced
        if wanted is None and (device == CPU or not self._headroom.budget):
            return None
        view = next((view for view in self._ladder.views() if view.name == name), None)
        if view is None or self._just_came_up(view):
            return None
        if wanted is not None:
            held = (view.bytes_on_device or 0) if view.device == wanted.device else 0
            if self._headroom.lack(wanted.device, _with_batches(wanted.whole) - held) <= 0:
                return f"{wanted.device} has room for it again"
        if (
            device == CPU
            or not (excess := self._headroom.confirmed(self._headroom.enforce_budget, device))
            or view.pinned
        ):
            return None
        self._relieve(Shortage(device, excess, _OVER_BUDGET), spare=name)
        return _OVER_BUDGET if self._headroom.enforce_budget(device) else None

    # When memory ran out

    def clear(self, device: str, *, spare: str) -> None:
        """Make everybody on `device` but `spare` step down who may, at once."""
        everything = Shortage(device, 1 << 62, "an encoder in use ran out of device memory")
        self._relieve(everything, spare=spare, patient=False)
        self._headroom.trim(device)

    def tighten(self, name: str) -> bool:
        """Let the next climb of an encoder begin one way further down, for its batches' sake; False at the end."""
        standing = self._standings[name]
        if standing.way is Way.ELSEWHERE:
            return False
        standing.first_way = Way(standing.way + 1)
        return True

    # Looking

    def shortages(self) -> list[Shortage]:
        """Return what is short now on the devices that encoders stand on: over the budget, or too little for others."""
        found = []
        kept_free = int(self._hardware.keep_free_vram * MIB)
        for device in self._in_use():
            if excess := self._headroom.confirmed(self._headroom.enforce_budget, device):
                found.append(Shortage(device, excess, _OVER_BUDGET))
            of_others = partial(self._headroom.lack_of_others, kept_free=kept_free)
            if (lack := self._headroom.confirmed(of_others, device)) > excess:
                found.append(Shortage(device, lack, "another program needs VRAM"))
        return found

    def relieve(self, shortage: Shortage) -> None:
        """Make idle encoders step down for `shortage`, longest idle first; those that just came up stay."""
        self._relieve(shortage, spare=None)

    @property
    def watching(self) -> bool:
        """Whether something could become short, and be seen to, without any encoder being used."""
        limited = self._hardware.keep_free_vram or self._headroom.budget
        return bool(limited) and any(map(self._headroom.known, self._in_use()))

    # Within

    def _ways_up(self, name: str, standing: Standing, needs: Needs, first: Way) -> Iterator[tuple[Way, Placement]]:
        if needs.device == CPU:
            yield Way.WHOLE, self._on_cpu(name, standing, needs, None)
            return
        device, choice = needs.device, self._hardware.on_no_room
        self._headroom.enforce_budget(device)
        streams = choice == "stream" and needs.least is not None
        if first <= Way.WHOLE:
            if self._make_room(name, device, needs.whole, in_part=streams):
                yield Way.WHOLE, Placement(device)
                # Memory ran out although the weights should fit: once more, with the device to itself.
                self.clear(device, spare=name)
                yield Way.WHOLE, Placement(device)
            else:
                standing.displaced = needs
        if streams:
            yield from self._streamed(device, needs, needs.least or 0, first)
        if choice != "error":
            because = f"It computes on the CPU, because {device} has no room for its {in_words(needs.whole)}."
            yield Way.ELSEWHERE, self._on_cpu(name, standing, needs, because)

    def _streamed(self, device: str, needs: Needs, least: int, first: Way) -> Iterator[tuple[Way, Placement]]:
        available = self._headroom.available(device)
        share = needs.whole // 2 if available is None else available - available // FOR_BATCHES
        if first == Way.STREAMED:
            # The weights fit, but nothing was left for batches.
            share = min(share, needs.whole // 2)
        if first <= Way.STREAMED and share > least:
            yield Way.STREAMED, Placement(device, share)
        if first <= Way.STREAMED_LEAST and (available is None or available >= least):
            yield Way.STREAMED_LEAST, Placement(device, least)

    def _on_cpu(self, name: str, standing: Standing, needs: Needs, reason: str | None) -> Placement:
        if needs.least is None:
            return Placement(CPU, reason=reason)
        with self._sharing:
            others = (view.name for view in self._ladder.views() if view.state in _UP and view.name != name)
            shares = [share for other in others if (share := self._standings[other].share) is not None]
            allowance = self._allowed_on_cpu()
            nbytes = min(needs.whole, max(0, allowance - sum(share.nbytes for share in shares)))
            standing.share = Share(nbytes, allowance)
        return Placement(CPU, None if nbytes == needs.whole else nbytes, reason)

    def _allowed_on_cpu(self) -> int:
        """Bytes that all streamed encoders may keep resident; without a limit none, since streaming shall save RAM."""
        return self._headroom.budget.allowance(CPU, None, 0) or 0

    def _make_room(self, name: str, device: str, wanted: int, *, in_part: bool) -> bool:
        """Make others step down until `wanted` bytes are free; returns whether they are, or nobody can say.

        Where that many cannot come free nobody moves, unless a part of them helps too.
        """

        def lack(device: str) -> int:
            return self._headroom.lack(device, wanted)

        missing = self._headroom.confirmed(lack, device)
        for patient in (True, False):
            if not missing:
                return True
            if not patient and self._headroom.forbidden(device, wanted):
                # Only a full device itself cannot wait until those that just came up have stayed their time.
                return False
            shortage = Shortage(device, missing, f"making room for {name}")
            self._relieve(shortage, spare=name, patient=patient, in_part=in_part)
            missing = max(0, lack(device))
        return not missing

    def _relieve(self, shortage: Shortage, *, spare: str | None, patient: bool = True, in_part: bool = True) -> None:
        """Step down for `shortage`; `patient` leaves those that just came up, without `in_part` it is all or nobody."""
        residency = self._hardware.minimum_residency_seconds if patient else 0.0
        views = list(self._ladder.views())
        decisions = policy.relieve(self._clock(), views, shortage, minimum_residency_seconds=residency, spare=spare)
        leaving = {decision.name for decision in decisions}
        freed = sum(view.bytes_on_device or 0 for view in views if view.name in leaving)
        if not in_part and freed < shortage.nbytes:
            return
        for decision in decisions:
            self._ladder.apply_decision(decision)

    def _in_use(self) -> set[str]:
        return {view.device for view in self._ladder.views() if view.awake and view.device} - {CPU}

    def _just_came_up(self, view: EncoderView) -> bool:
        residency = self._hardware.minimum_residency_seconds
        return view.came_up_at is not None and view.came_up_at + residency > self._clock()


def _with_batches(nbytes: int) -> int:
    """Weights with what a batch may take beside them."""
    return nbytes + nbytes // FOR_BATCHES

"""The moves of one slot: climbs behind LOADING, steps down behind STEPPING_DOWN, and what each leaves known."""

from __future__ import annotations

import logging
from collections.abc import Callable

from engine.adapters.protocol import Adapter
from engine.devices.placement import CPU, UNKNOWN
from engine.errors import Closed, EncoderError, Unavailable
from engine.settings.effective import Timeouts
from engine.slot.admission import Admission
from engine.slot.backoff import Backoff
from engine.slot.idle_clock import IdleClock
from engine.slot.refusal import Refusal
from engine.slot.report import Report
from engine.slot.state_machine import StateMachine
from engine.slot.transitions import NoPlace, SteppedDown, bring_up, step_down, unload, words_for_leftovers
from engine.state import ErrorView, Outcome, Result, SlotView, State

_log = logging.getLogger(__name__)


class Mover:
    """Moves one set of weights, one thread at a time, outside the lock of its state machine.

    Its fields are written, and `begin` is called, under that lock; `climb` and `descend` take it themselves. A lease
    keeps `climbs` and `device` as they are without the lock.
    """

    def __init__(
        self,
        machine: StateMachine,
        adapter: Adapter,
        admission: Admission,
        timeouts: Timeouts,
        clock: Callable[[], float],
    ) -> None:
        self.idle = IdleClock(timeouts)
        self.backoff = Backoff()
        self.refusal = Refusal(adapter)
        self.climbs = 0
        """The number of climbs so far, the running one included."""
        self._machine = machine
        self._adapter = adapter
        self._admission = admission
        self._clock = clock
        self._report = Report()

    @property
    def device(self) -> str | None:
        """The device that the weights were read for; None before the first load."""
        return self._report.device

    @property
    def off_device(self) -> bool:
        """Whether the weights rest, and on no device other than the CPU."""
        return self._machine.resting and (self._machine.state is not State.ON_DEVICE or self.device == CPU)

    def view(self, *, pinned: bool, in_flight: int) -> SlotView:
        """Return a snapshot; `pinned` and `in_flight`, the number of leases, come from the slot."""
        machine, idle = self._machine, self.idle
        life = SlotView(
            name=machine.name,
            state=machine.state,
            idle_timeout_seconds=idle.timeouts.idle_timeout_seconds,
            unload_timeout_seconds=idle.timeouts.unload_timeout_seconds,
            keep_alive_seconds=idle.keep_alive_seconds,
            last_used=idle.last_used,
            last_used_by=idle.last_used_by,
            came_up_at=idle.came_up_at,
            stepped_down_at=idle.stepped_down_at,
            first_encode_seconds=idle.first_use_seconds,
            error=self.backoff.error,
            download=self._adapter.download if machine.state is State.LOADING else None,
            pinned=pinned,
            in_flight=in_flight,
        )
        return self._report.completed(life)

    def look_again(self, known: ErrorView | None) -> None:
        """Raise the kept Unavailable, or end the delay after the `known` error, by what changed since; takes the lock.

        A folder that is still being copied fails until it is whole, and must not wait for a delay after that.
        """
        name = self._machine.name
        self.refusal.raise_again(name)
        if known is not None and known.retry_at is not None and (change := self._adapter.mended()) is not None:
            _log.info("%s is tried again: %s", name, change)
            with self._machine.locked():
                self.backoff.excuse(known)

    def begin(self) -> State:
        """Enter LOADING and return the rung that the climb starts from; the caller must `climb` next."""
        origin = self._machine.state
        self.climbs += 1
        self._machine.enter(State.LOADING)
        return origin

    def climb(self, origin: State, target: State, *, fault_in: bool, arrived: Callable[[], bool]) -> None:
        """Load or resume; the error of a failure is kept for the waiters and raised.

        `arrived` is called under the lock at the end of a climb that went well: True where the weights may stay up,
        False where the slot is closing, which raises Closed.
        """
        machine, began = self._machine, self._clock()
        name = machine.name
        try:
            found = bring_up(
                name,
                self._adapter,
                origin,
                target,
                device=self.device,
                fault_in=fault_in,
                admission=self._admission,
                refusal=self.refusal,
            )
        except EncoderError as error:
            self._fall(State.UNAVAILABLE if isinstance(error, Unavailable) else State.FAILED, error)
            raise
        except BaseException:
            self._fall(State.UNLOADED, None)
            raise
        with machine.locked():
            now = self._clock()
            if found.loaded is not None:
                self._report.read(found.loaded, self._adapter.cannot_rest)
            self.backoff.reset()
            if isinstance(found, NoPlace):
                self._find_no_place(found, now)
            else:
                self.idle.came_up(now)
                machine.enter(target, reason=self._report.came_up(found, now - began))
                if arrived():
                    return
        raise found.error if isinstance(found, NoPlace) else Closed(f"{name} is closing.")

    def descend(self, target: State, reason: str | None) -> Outcome:
        """Take the weights from STEPPING_DOWN, which keeps every other thread from moving them, to `target`."""
        machine, began = self._machine, self._clock()
        name = machine.name
        try:
            down = step_down(name, self._adapter, target, device=self.device or CPU)
        except BaseException:
            self._fall(State.UNLOADED, None)
            raise
        with machine.locked():
            seconds = self._clock() - began
            self._rest(down, reason, seconds if down.rung is State.IN_RAM else None)
        result = Result.DONE if down.done else Result.REFUSED
        return Outcome(name, result, down.rung, down.freed, seconds, down.note)

    def _find_no_place(self, refused: NoPlace, now: float) -> None:
        """Rest where a climb ended that no device had room for, under the lock."""
        self.idle.stepped_down(now)
        rung = refused.resting.rung
        if rung is State.UNLOADED:
            self.backoff.hold_off(refused.error, now)
        self._machine.enter(rung, reason=self._report.found_no_place(refused))

    def _fall(self, state: State, error: EncoderError | None) -> None:
        """Unload what is half up, keep `error` for the waiters, and rest in `state`."""
        left, gone = UNKNOWN, False
        try:
            left, gone = unload(self._machine.name, self._adapter)
        finally:
            with self._machine.locked():
                if error is None:
                    self.backoff.forget()
                else:
                    self.backoff.record(error, self._clock())
                self._rest(SteppedDown(state, left, None, None if gone else words_for_leftovers(left), error))

    def _rest(self, down: SteppedDown, reason: str | None = None, seconds: float | None = None) -> None:
        """Enter the rung where a step down ended that took `seconds`, under the lock."""
        self.idle.stepped_down(self._clock())
        self._report.went_down(down, seconds, reason)
        self._machine.enter(down.rung, reason=reason, error=down.error)

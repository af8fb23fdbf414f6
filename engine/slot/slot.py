"""The owner of one set of weights: its leases, its pin, and who may move it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from engine.adapters.protocol import Adapter
from engine.events import SlotEvent
from engine.settings.effective import Timeouts
from engine.slot.admission import Admission, Unbounded
from engine.slot.departure import Departure, Departures
from engine.slot.idle_clock import Use
from engine.slot.leases import Leases
from engine.slot.mover import Mover
from engine.slot.state_machine import StateMachine
from engine.slot.transitions import measure
from engine.state import Outcome, Result, SlotView, State


class Slot:
    """Moves one set of weights up and down the ladder; while a lease is out, nothing moves.

    Any thread may call any method. The lock is held for bookkeeping only; loads, moves and measurements run outside
    it, loads and moves by one thread at a time, behind the states LOADING and STEPPING_DOWN.
    """

    def __init__(
        self,
        name: str,
        adapter: Adapter,
        timeouts: Timeouts,
        *,
        pinned: bool = False,
        admission: Admission | None = None,
        publish: Callable[[SlotEvent], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        admission = admission or Unbounded()
        self._adapter = adapter
        self._pinned = pinned
        self._clock = clock
        self._machine = StateMachine(name, publish)
        self._mover = Mover(self._machine, adapter, admission, timeouts, clock)
        self._departures = Departures(adapter, admission)
        self._leases = Leases(self._machine, self._mover, clock)

    @property
    def name(self) -> str:
        """The name of the encoder that leads those on these weights."""
        return self._machine.name

    @property
    def keep_alive_seconds(self) -> float | None:
        """Seconds that requests set over the idle timeout until the next step down; None for none."""
        return self._mover.idle.keep_alive_seconds

    def view(self, *, measured: bool = False) -> SlotView:
        """Return a snapshot, which never loads, wakes or resets a clock.

        The bytes are those after the last move; `measured` asks the system for those of this instant.
        """
        with self._machine.locked():
            view = self._mover.view(pinned=self._pinned, in_flight=self._leases.out)
        if not measured or view.state not in (State.ON_DEVICE, State.IN_RAM):
            return view
        now = measure(view.name, self._adapter)
        return replace(view, bytes_on_device=now.on_device, bytes_in_ram=now.in_ram)

    # Use

    @contextmanager
    def lease(self, used_by: str | None = None, keep_alive: float | None = None) -> Iterator[Adapter]:
        """Bring the encoder to its device, hold it there, and give its adapter.

        `keep_alive` seconds take the place of the idle timeout from the end of this use until another use names a
        value or the encoder steps down; 0 unloads, negative lets it stay. A thread holds one lease at a time.
        Raises LoadFailed or Unavailable when it cannot be brought up, Closed when it is closing.
        """
        self._acquire()
        began = self._clock()
        try:
            yield self._adapter
        finally:
            self._release(Use(used_by, self._clock() - began, keep_alive))

    def warm(self) -> None:
        """Bring every page of the encoder to its device without using it; its idle clock starts at the end of that.

        One that is there already stays as it is; one that is unavailable is tried again.
        """
        self._mover.refusal.forget()
        self._acquire(fault_in=True)
        self._release()

    def preload(self) -> None:
        """Read the weights into RAM, from where the first use goes up; one that is up already is left alone."""
        self._mover.look_again(self._mover.backoff.error)
        with self._machine.locked():
            self._machine.wait_for(lambda: self._leases.closing or self._machine.resting)
            self._leases.refuse_when_closing()
            if self._machine.state in (State.ON_DEVICE, State.IN_RAM):
                return
            self._mover.backoff.raise_if_waiting(self._machine.state, self._clock(), waited=False)
            origin = self._mover.begin()
        self._climb(origin, State.IN_RAM, fault_in=True)

    def retry(self) -> None:
        """Forget the delay after a failed load, then `warm`."""
        with self._machine.locked():
            if self._machine.state is State.FAILED:
                self._machine.enter(State.UNLOADED)
        self.warm()

    # Control

    def offload(self, *, if_unused_since: float | None = None, reason: str | None = None) -> Outcome:
        """Take the weights off the device: to RAM, or drop them where they cannot wait there.

        With `if_unused_since` a slot that was used after that instant answers `busy`.
        """
        outcome = self._step_down((State.ON_DEVICE,), State.IN_RAM, if_unused_since, reason)
        self._drop_if_closing()
        return outcome

    def unload(self, *, if_unused_since: float | None = None, reason: str | None = None) -> Outcome:
        """Drop weights, skeleton and tokenizer; `if_unused_since` as in `offload`."""
        return self._step_down((State.ON_DEVICE, State.IN_RAM), State.UNLOADED, if_unused_since, reason)

    def evacuate(self, reason: str, timeout: float) -> Outcome:
        """Take weights that are not in use off a device that is about to lose them, pinned or not.

        Waits up to `timeout` seconds for that, while new leases wait, then answers `busy`; the next use brings them up
        again. Weights that compute on a CPU stay.
        """
        machine, mover = self._machine, self._mover
        with machine.locked():
            with self._leases.held_back():
                machine.wait_for(lambda: mover.off_device or (not self._leases.out and machine.resting), timeout)
            if mover.off_device:
                return Outcome(self.name, Result.DONE, machine.state)
            if self._leases.out or not machine.resting:
                self._departures.condemn(Departure(mover.climbs, State.IN_RAM, reason))
                return Outcome(self.name, Result.BUSY, machine.state)
            machine.enter(State.STEPPING_DOWN, reason=reason)
        outcome = mover.descend(State.IN_RAM, reason)
        self._drop_if_closing()
        return outcome

    def condemn(self, reason: str) -> None:
        """Keep the weights that are up now from being used again: the next use reads them from disk."""
        with self._machine.locked():
            self._departures.condemn(Departure(self._mover.climbs, State.UNLOADED, reason))

    def configure(self, timeouts: Timeouts, *, name: str | None = None, pinned: bool | None = None) -> None:
        """Put new timeouts in force, and a new leader's name and a new pin unless they are None."""
        with self._machine.locked():
            self._mover.idle.configure(timeouts)
            if name is not None:
                self._machine.name = name
            if pinned is not None:
                self._pinned = pinned

    def pin(self, pinned: bool) -> Outcome:
        """Keep the encoder on its rung until unpinned, or let it go again; loads nothing."""
        with self._machine.locked():
            self._pinned = pinned
            return Outcome(self.name, Result.DONE, self._machine.state)

    def close(self, timeout: float) -> bool:
        """Take no new lease, wait up to `timeout` seconds for those that are out, and drop everything.

        Returns False when something was still in use; the end of that use then drops it.
        """
        ends = time.monotonic() + timeout
        machine = self._machine
        with machine.locked():
            self._leases.close()
            idle = machine.wait_for(lambda: not self._leases.out and machine.resting, timeout)
        if not idle:
            return False
        self._drop_if_closing()
        with machine.locked():
            # The thread of the last use may have begun the drop first.
            return machine.wait_for(lambda: machine.resting, max(0.0, ends - time.monotonic()))

    # Within

    def _acquire(self, *, fault_in: bool = False) -> None:
        while True:
            known = self._mover.backoff.error
            self._mover.look_again(known)
            origin = self._leases.take(known)
            if origin is not None:
                self._climb(origin, State.ON_DEVICE, fault_in=fault_in)
                return
            try:
                # Under this lease both stay the same.
                departure = self._departures.due(self.name, self._mover.climbs, self._mover.device)
            except BaseException:
                self._release()
                raise
            if departure is None:
                return
            self._release()
            self._leave(departure)

    def _climb(self, origin: State, target: State, *, fault_in: bool) -> None:
        """Climb; on the device this thread holds a lease at the end."""
        arrived = partial(self._leases.take_after_climb, target)
        try:
            self._mover.climb(origin, target, fault_in=fault_in, arrived=arrived)
        finally:
            self._drop_if_closing()

    def _release(self, use: Use | None = None) -> None:
        self._leases.give_back(use)
        self._drop_if_closing()

    def _step_down(
        self, rungs: tuple[State, ...], target: State, if_unused_since: float | None, reason: str | None
    ) -> Outcome:
        machine = self._machine
        with machine.locked():
            if machine.state not in rungs:
                return Outcome(self.name, Result.DONE if machine.resting else Result.BUSY, machine.state)
            used_since = if_unused_since is not None and self._mover.idle.last_used != if_unused_since
            if self._leases.out or used_since:
                return Outcome(self.name, Result.BUSY, machine.state)
            if self._pinned and not self._leases.closing:
                why = f"{self.name} is pinned."
                return Outcome(self.name, Result.REFUSED, machine.state, reason=why, pinned_by=(self.name,))
            machine.enter(State.STEPPING_DOWN, reason=reason)
        return self._mover.descend(target, reason)

    def _leave(self, departure: Departure) -> None:
        """Take down the weights that are due to leave, once they are not in use."""
        machine, mover, climb = self._machine, self._mover, departure.climb
        with machine.locked():
            machine.wait_for(lambda: not self._leases.out or mover.climbs != climb or self._leases.closing)
            if machine.state is not State.ON_DEVICE or mover.climbs != climb or self._leases.closing:
                return
            machine.enter(State.STEPPING_DOWN, reason=departure.reason)
        mover.descend(departure.target, departure.reason)
        self._drop_if_closing()

    def _drop_if_closing(self) -> None:
        """Drop what is left of a closing slot; called after the end of every use and move."""
        if self._leases.closing:
            self.unload(reason="closing")

"""The single owner of one encoder's life: its state, its leases and every move between the rungs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from engine.adapters.protocol import Adapter
from engine.devices.footprint import UNKNOWN
from engine.devices.placement import CPU
from engine.errors import Closed, EncoderError, Unavailable
from engine.events import Event, StateChanged, TimerSet
from engine.settings.effective import Terms
from engine.slot.admission import Admission, Unbounded
from engine.slot.backoff import Setback
from engine.slot.descent import Descent, descend, drop, kept, look
from engine.slot.idle_clock import IdleClock, Use
from engine.slot.report import Record, with_bytes
from engine.slot.transitions import Refusal, ascend
from engine.state import RESTING, EncoderView, Outcome, State


def pinned(name: str) -> str:
    """Say why a pinned encoder does not move."""
    return f"{name} is pinned."


@dataclass(frozen=True, slots=True)
class _Departure:
    """What one climb brought up must not be used any more: where it goes instead, and why."""

    climb: int
    target: State
    reason: str


class Slot:
    """Moves one encoder up and down the ladder; while a lease is out, nothing moves.

    Any thread may call any method. The lock is held for bookkeeping only; loads, moves and looks at the system run
    outside it, loads and moves by one thread at a time, behind the states LOADING and STEPPING_DOWN.
    """

    def __init__(
        self,
        name: str,
        adapter: Adapter,
        terms: Terms,
        *,
        pinned: bool = False,
        room: Admission | None = None,
        publish: Callable[[Event], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        """Whose it is; the engine changes it when another of those that share it comes to lead."""
        self._adapter = adapter
        self._terms = terms
        self._room = room or Unbounded()
        self._pinned = pinned
        self._publish = publish
        self._clock = clock
        self._changed = threading.Condition()
        self._unpublished: list[Event] = []
        self._state = State.UNLOADED
        self._leases = 0
        self._climbs = 0
        self._setback = Setback()
        self._idle = IdleClock()
        self._closing = False
        self._record = Record()
        self._evacuations = 0
        self._condemned: _Departure | None = None

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
        """Bring the encoder to its device without using it, every page of it; its idle clock starts when that ends.

        One that is there already stays as it is.
        """
        self._acquire(fault_in=True)
        self._release()

    def preload(self) -> None:
        """Read the weights into RAM, from where the first use goes up; one that is up already is left alone."""
        with self._turn():
            self._changed.wait_for(lambda: self._closing or self._state in RESTING)
            if self._closing:
                raise Closed(f"{self.name} is closing.")
            if self._state in (State.ON_DEVICE, State.IN_RAM):
                return
            self._setback.refuse(self._state, self._clock(), waited=False)
            origin = self._begin_climb()
        self._climb(origin, State.IN_RAM, fault_in=True)

    def retry(self) -> None:
        """Forget the delay after a failed load, then `warm`."""
        with self._turn():
            if self._state is State.FAILED:
                self._enter(State.UNLOADED)
        self.warm()

    def offload(self, *, if_unused_since: float | None = None, reason: str | None = None) -> Outcome:
        """Take the weights off the device: to RAM, or all the way down where they cannot rest there.

        With `if_unused_since` a slot that was used after that instant answers `busy`.
        """
        outcome = self._step_down(frozenset({State.ON_DEVICE}), State.IN_RAM, if_unused_since, reason)
        self._drop_if_closing()
        return outcome

    def evacuate(self, reason: str, timeout: float) -> Outcome:
        """Take the weights off a device that is about to lose them, pinned or not, once nobody uses them.

        Waits up to `timeout` seconds for that, while nobody new comes in, then answers `busy`; the next use brings it
        up anew. What computes on a CPU stays.
        """
        with self._turn():
            self._evacuations += 1
            try:
                self._changed.wait_for(
                    lambda: self._off_device or (not self._leases and self._state in RESTING), timeout
                )
            finally:
                self._evacuations -= 1
                self._changed.notify_all()
            if self._off_device:
                return Outcome(self.name, "done", self._state)
            if self._leases or self._state not in RESTING:
                self._condemned = _Departure(self._climbs, State.IN_RAM, reason)
                return Outcome(self.name, "busy", self._state)
            self._enter(State.STEPPING_DOWN, reason=reason)
        outcome = self._descend(State.IN_RAM, reason)
        self._drop_if_closing()
        return outcome

    def condemn(self, reason: str) -> None:
        """Let nobody use again what is up now: the next use reads it anew."""
        with self._changed:
            self._condemned = _Departure(self._climbs, State.UNLOADED, reason)

    def unload(self, *, if_unused_since: float | None = None, reason: str | None = None) -> Outcome:
        """Drop weights, skeleton and tokenizer; `if_unused_since` as in `offload`."""
        return self._step_down(frozenset({State.ON_DEVICE, State.IN_RAM}), State.UNLOADED, if_unused_since, reason)

    def configure(self, terms: Terms, *, pinned: bool | None = None) -> None:
        """Put new timeouts in force, and a new pin unless it is None."""
        with self._changed:
            self._terms = terms
            self._idle.keep_alive_seconds = terms.bounded(self._idle.keep_alive_seconds)
            if pinned is not None:
                self._pinned = pinned

    def pin(self, pinned: bool) -> Outcome:
        """Keep the encoder on its rung until unpinned, or let it go again; loads nothing."""
        with self._changed:
            self._pinned = pinned
            return Outcome(self.name, "done", self._state)

    def close(self, timeout: float) -> bool:
        """Take no new lease, wait up to `timeout` seconds for those that are out, and drop everything.

        Returns False when something was still in use; it is then dropped by whoever ends its use.
        """
        ends = time.monotonic() + timeout
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            idle = self._changed.wait_for(lambda: not self._leases and self._state in RESTING, timeout)
        if not idle:
            return False
        self._drop_if_closing()
        with self._changed:
            # Whoever ended its use last may have begun the drop first.
            return self._changed.wait_for(lambda: self._state in RESTING, max(0.0, ends - time.monotonic()))

    @property
    def keep_alive_seconds(self) -> float | None:
        """What requests set over the idle timeout until the next step down; None for nothing."""
        return self._idle.keep_alive_seconds

    def view(
        self,
        *,
        kind: str,
        model: str,
        aliases: tuple[str, ...],
        is_default: bool,
        queued: int,
        measured: bool = False,
    ) -> EncoderView:
        """Return a snapshot; looking never loads, wakes or resets a clock.

        The bytes are those after the last move; `measured` asks the system for those of this instant.
        """
        with self._changed:
            view = EncoderView(
                name=self.name,
                kind=kind,
                model=model,
                aliases=aliases,
                is_default=is_default,
                state=self._state,
                idle_timeout_seconds=self._terms.idle_timeout_seconds,
                unload_timeout_seconds=self._terms.unload_timeout_seconds,
                keep_alive_seconds=self._idle.keep_alive_seconds,
                pinned=self._pinned,
                in_flight=self._leases,
                queued=queued,
                last_used=self._idle.last_used,
                last_used_by=self._idle.last_used_by,
                came_up_at=self._idle.came_up_at,
                stepped_down_at=self._idle.stepped_down_at,
                first_encode_seconds=self._idle.first_use_seconds,
                error=self._setback.error,
            )
            view = self._record.drawn_into(view)
            if view.state is State.LOADING:
                view = replace(view, download=self._adapter.download)
        if not measured or view.state not in (State.ON_DEVICE, State.IN_RAM):
            return view
        return with_bytes(view, look(self.name, self._adapter))

    # Leases

    def _acquire(self, *, fault_in: bool = False) -> None:
        while True:
            climbed = self._take(fault_in=fault_in)
            if climbed:
                return
            try:
                departure = self._due_to_leave()
            except BaseException:
                self._release()
                raise
            if departure is None:
                return
            self._release()
            self._quit(departure)

    def _due_to_leave(self) -> _Departure | None:
        """Say where what is up has to go before it may be used; called under a lease, so that it stays the same."""
        climb, device = self._climbs, self._record.device
        if self._condemned is not None and self._condemned.climb == climb:
            return self._condemned
        if changed := self._adapter.stale():
            # Its pages must not be touched: they may be gone, or another file's.
            return _Departure(climb, State.UNLOADED, f"{changed} since it was loaded")
        misplaced = self._room.misplaced(self.name, device) if device is not None else None
        return _Departure(climb, State.IN_RAM, misplaced) if misplaced else None

    def _take(self, *, fault_in: bool) -> bool:
        """Take a lease on the device, after a climb where one is needed; returns whether this thread climbed."""
        waited_for = 0
        with self._turn():
            while True:
                if self._closing:
                    raise Closed(f"{self.name} is closing.")
                if self._evacuations:
                    self._changed.wait()
                    continue
                if self._state is State.ON_DEVICE:
                    self._leases += 1
                    return False
                if self._state in RESTING:
                    self._setback.refuse(self._state, self._clock(), waited=waited_for == self._climbs)
                    origin = self._begin_climb()
                    break
                if self._state is State.LOADING:
                    waited_for = self._climbs
                self._changed.wait()
        self._climb(origin, State.ON_DEVICE, fault_in=fault_in)
        return True

    def _release(self, use: Use | None = None) -> None:
        """Give a lease back; without a `use` the idle clock goes on as it was."""
        with self._turn():
            self._leases -= 1
            set_anew = False
            if use is not None:
                set_anew = self._idle.used(self._clock(), replace(use, keep_alive=self._terms.bounded(use.keep_alive)))
            if set_anew or (self._idle.keep_alive_seconds == 0 and not self._leases):
                self._unpublished.append(TimerSet(self.name))
            self._changed.notify_all()
        self._drop_if_closing()

    # Up

    def _begin_climb(self) -> State:
        origin = self._state
        self._climbs += 1
        self._enter(State.LOADING)
        return origin

    def _climb(self, origin: State, target: State, *, fault_in: bool) -> None:
        """Load or resume. On the device this thread holds a lease at the end; else the error is kept and raised."""
        began = self._clock()
        try:
            ascent = ascend(
                self.name, self._adapter, origin, target, device=self._record.device, fault_in=fault_in, room=self._room
            )
        except EncoderError as error:
            self._fall(State.UNAVAILABLE if isinstance(error, Unavailable) else State.FAILED, error)
            raise
        except BaseException:
            self._fall(State.UNLOADED, None)
            raise
        with self._turn():
            now = self._clock()
            if ascent.loaded is not None:
                self._record.read(ascent.loaded, self._adapter.cannot_rest)
            self._setback.overcome()
            if isinstance(ascent, Refusal):
                self._turn_away(ascent, now)
            else:
                self._idle.came_up(now)
                self._enter(target, reason=self._record.came_up(ascent, now - began))
                if not self._closing:
                    self._leases += target is State.ON_DEVICE
                    return
        self._drop_if_closing()
        raise ascent.error if isinstance(ascent, Refusal) else Closed(f"{self.name} is closing.")

    def _turn_away(self, refusal: Refusal, now: float) -> None:
        """Rest where a climb ended that no device had room for, under the lock."""
        self._idle.stepped_down(now)
        rung = refusal.resting.rung
        if rung is State.UNLOADED:
            self._setback.postpone(refusal.error, now)
        self._enter(rung, reason=self._record.was_refused(refusal))

    def _fall(self, state: State, error: EncoderError | None) -> None:
        """Leave nothing half-loaded behind, keep `error` for the waiters, and settle in `state`."""
        left, gone = UNKNOWN, False
        try:
            left, gone = drop(self.name, self._adapter)
        finally:
            with self._turn():
                if error is None:
                    self._setback.forget()
                else:
                    self._setback.record(error, self._clock())
                self._settle(Descent(state, left, None, None if gone else kept(left), error))

    # Down

    def _step_down(
        self, rungs: frozenset[State], target: State, if_unused_since: float | None, reason: str | None
    ) -> Outcome:
        with self._turn():
            if self._state not in rungs:
                return Outcome(self.name, "done" if self._state in RESTING else "busy", self._state)
            used_since = if_unused_since is not None and self._idle.last_used != if_unused_since
            if self._leases or used_since:
                return Outcome(self.name, "busy", self._state)
            if self._pinned and not self._closing:
                return Outcome(self.name, "refused", self._state, reason=pinned(self.name))
            self._enter(State.STEPPING_DOWN, reason=reason)
        return self._descend(target, reason)

    def _quit(self, departure: _Departure) -> None:
        """Take down what is due to leave, once nobody uses it."""
        climb = departure.climb
        with self._turn():
            self._changed.wait_for(lambda: not self._leases or self._climbs != climb or self._closing)
            if self._state is not State.ON_DEVICE or self._climbs != climb or self._closing:
                return
            self._enter(State.STEPPING_DOWN, reason=departure.reason)
        self._descend(departure.target, departure.reason)
        self._drop_if_closing()

    def _descend(self, target: State, reason: str | None) -> Outcome:
        """Go down from STEPPING_DOWN, which keeps everybody else from moving anything."""
        began = self._clock()
        try:
            descent = descend(self.name, self._adapter, target, device=self._record.device or CPU)
        except BaseException:
            self._fall(State.UNLOADED, None)
            raise
        with self._turn():
            seconds = self._clock() - began
            self._settle(descent, reason, seconds if descent.rung is State.IN_RAM else None)
        result = "done" if descent.done else "refused"
        return Outcome(self.name, result, descent.rung, descent.freed, seconds, descent.note)

    def _settle(self, descent: Descent, reason: str | None = None, seconds: float | None = None) -> None:
        """Rest where a way down ended that took `seconds`, under the lock."""
        self._idle.stepped_down(self._clock())
        self._record.went_down(descent, seconds, reason)
        self._enter(descent.rung, reason=reason, error=descent.error)

    @property
    def _off_device(self) -> bool:
        """Whether it rests, and on no device other than the CPU."""
        return self._state in RESTING and (self._state is not State.ON_DEVICE or self._record.device == CPU)

    def _drop_if_closing(self) -> None:
        """Called after anything ended: the last one out of a closing slot drops what is left."""
        if self._closing:
            self.unload(reason="closing")

    # Bookkeeping

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the lock, then publish what changed under it once it is free again."""
        try:
            with self._changed:
                try:
                    yield
                finally:
                    events, self._unpublished = self._unpublished, []
        finally:
            for event in events:
                self._publish(event)

    def _enter(self, state: State, *, reason: str | None = None, error: EncoderError | None = None) -> None:
        """Change the state, under the lock; wakes everyone who waits for a change."""
        self._unpublished.append(StateChanged(self.name, self._state, state, reason, error))
        self._state = state
        self._changed.notify_all()

"""The single owner of one encoder's life: its state, its leases and every move between the rungs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from engine.adapters.protocol import Adapter, Footprint, Loaded
from engine.errors import Closed, EncoderError, LoadFailed, MoveFailed, Unavailable
from engine.events import Event, StateChanged
from engine.state import RESTING, EncoderView, ErrorView, Outcome, State

_log = logging.getLogger(__name__)

_NOTHING: Final = Footprint(0, 0, 0)
_FIRST_RETRY_SECONDS: Final = 5.0
_LONGEST_RETRY_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Terms:
    """When an encoder steps down: seconds on its device without use, then seconds in RAM; 0 = never."""

    idle_timeout_seconds: float
    unload_timeout_seconds: float


class Slot:
    """Moves one encoder up and down the ladder; while a lease is out, nothing moves.

    Any thread may call any method. The lock is held for bookkeeping only; loads and moves run outside it, by one
    thread at a time, behind the states LOADING and STEPPING_DOWN.
    """

    def __init__(
        self,
        name: str,
        adapter: Adapter,
        terms: Terms,
        *,
        pinned: bool = False,
        publish: Callable[[Event], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._adapter = adapter
        self._terms = terms
        self._pinned = pinned
        self._publish = publish
        self._clock = clock
        self._changed = threading.Condition()
        self._unpublished: list[Event] = []
        self._state = State.UNLOADED
        self._leases = 0
        self._climbs = 0
        self._failures = 0
        self._error: ErrorView | None = None
        self._closing = False
        self._footprint = _NOTHING
        self._bytes_total: int | None = None
        self._loaded: Loaded | None = None
        self._loads = 0
        self._last_used: float | None = None
        self._last_used_by: str | None = None
        self._stepped_down_at: float | None = None
        self._first_use_seconds: float | None = None
        self._reload_seconds: float | None = None
        self._offload_seconds: float | None = None

    @contextmanager
    def lease(self, used_by: str | None = None) -> Iterator[Adapter]:
        """Bring the encoder to its device, hold it there, and give its adapter.

        Raises LoadFailed or Unavailable when it cannot be brought up, Closed when it is closing.
        """
        self._acquire()
        began = self._clock()
        try:
            yield self._adapter
        finally:
            self._release(used_by, self._clock() - began)

    def warm(self) -> None:
        """Bring the encoder to its device without using it; its idle clock starts when a load ends."""
        self._acquire()
        self._release()

    def retry(self) -> None:
        """Forget the delay after a failed load, then `warm`."""
        with self._turn():
            if self._state is State.FAILED:
                self._enter(State.UNLOADED)
        self.warm()

    def offload(self, *, if_unused_since: float | None = None, reason: str | None = None) -> Outcome:
        """Take the weights off the device: to RAM, or all the way down where the adapter cannot rest there.

        With `if_unused_since` a slot that was used after that instant answers `busy`.
        """
        outcome = self._step_down(frozenset({State.ON_DEVICE}), State.IN_RAM, if_unused_since, reason)
        self._drop_if_closing()
        return outcome

    def unload(self, *, if_unused_since: float | None = None, reason: str | None = None) -> Outcome:
        """Drop weights, skeleton and tokenizer; `if_unused_since` as in `offload`."""
        return self._step_down(frozenset({State.ON_DEVICE, State.IN_RAM}), State.UNLOADED, if_unused_since, reason)

    def configure(self, terms: Terms, *, pinned: bool | None = None) -> None:
        """Put new timeouts in force, and a new pin unless it is None."""
        with self._changed:
            self._terms = terms
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

    def view(self, *, kind: str, model: str, aliases: tuple[str, ...], is_default: bool, queued: int) -> EncoderView:
        """Return a snapshot; looking never loads, wakes or resets a clock."""
        with self._changed:
            loaded = self._loaded
            return EncoderView(
                name=self.name,
                kind=kind,
                model=model,
                aliases=aliases,
                is_default=is_default,
                state=self._state,
                idle_timeout_seconds=self._terms.idle_timeout_seconds,
                unload_timeout_seconds=self._terms.unload_timeout_seconds,
                pinned=self._pinned,
                revision=loaded.revision if loaded else None,
                device=loaded.device if loaded else None,
                bytes_on_device=self._footprint.on_device,
                bytes_in_ram=self._footprint.in_ram,
                bytes_total=self._bytes_total,
                in_flight=self._leases,
                queued=queued,
                last_used=self._last_used,
                last_used_by=self._last_used_by,
                stepped_down_at=self._stepped_down_at,
                import_seconds=loaded.import_seconds if loaded else None,
                load_seconds=loaded.load_seconds if loaded else None,
                first_encode_seconds=self._first_use_seconds,
                reload_seconds=self._reload_seconds,
                offload_seconds=self._offload_seconds,
                loads=self._loads,
                error=self._error,
            )

    # Leases

    def _acquire(self) -> None:
        waited_for = 0
        with self._turn():
            while True:
                if self._closing:
                    raise Closed(f"{self.name} is closing.")
                if self._state is State.ON_DEVICE:
                    self._leases += 1
                    return
                if self._state in RESTING:
                    self._refuse_if_hopeless(waited_for)
                    origin = self._state
                    self._climbs += 1
                    self._enter(State.LOADING)
                    break
                if self._state is State.LOADING:
                    waited_for = self._climbs
                self._changed.wait()
        self._climb(origin)

    def _refuse_if_hopeless(self, waited_for: int) -> None:
        """Raise the kept error to those who waited for the climb that failed, and while its delay lasts."""
        if self._error is None:
            return
        if self._state is State.FAILED and self._error.retry_at is not None:
            wait = max(0.0, self._error.retry_at - self._clock())
            if wait > 0 or waited_for == self._climbs:
                raise LoadFailed(
                    self._error.message,
                    title=self._error.title,
                    next_step=self._error.next_step,
                    retry_in_seconds=wait,
                )
        if self._state is State.UNAVAILABLE and waited_for == self._climbs:
            raise Unavailable(self._error.message, title=self._error.title, next_step=self._error.next_step)

    def _release(self, used_by: str | None = None, seconds: float | None = None) -> None:
        with self._changed:
            self._leases -= 1
            if seconds is not None:
                self._last_used = self._clock()
                self._last_used_by = used_by
                if self._first_use_seconds is None:
                    self._first_use_seconds = seconds
            self._changed.notify_all()
        self._drop_if_closing()

    # Up

    def _climb(self, origin: State) -> None:
        """Load or resume; at the end this thread holds a lease, or the error is kept and raised."""
        began = self._clock()
        loaded = None
        try:
            if origin is State.IN_RAM:
                self._adapter.resume()
            else:
                self._adapter.probe()
                loaded = self._adapter.load()
            footprint = self._adapter.footprint()
        except Unavailable as error:
            self._fall(State.UNAVAILABLE, error)
            raise
        except Exception as error:  # noqa: BLE001 - the adapter edge: logged, translated and raised
            _log.exception("%s could not be brought to its device", self.name)
            failure = self._fall(State.FAILED, _translated(self.name, error))
            raise failure from (None if failure is error else error)
        except BaseException:
            self._fall(State.UNLOADED, None)
            raise
        with self._turn():
            self._footprint = footprint
            self._bytes_total = footprint.total
            self._error = None
            self._failures = 0
            self._last_used = self._clock()
            if loaded is None:
                self._reload_seconds = self._last_used - began
            else:
                self._loaded = loaded
                self._loads += 1
                self._first_use_seconds = None
            self._enter(State.ON_DEVICE)
            if not self._closing:
                self._leases += 1
                return
        self._drop_if_closing()
        raise Closed(f"{self.name} is closing.")

    def _fall(self, state: State, error: EncoderError | None) -> EncoderError:
        """Leave nothing half-loaded behind, keep `error` for the waiters, and settle in `state`."""
        self._drop()
        retry_in = None
        with self._turn():
            if state is State.FAILED:
                self._failures += 1
                retry_in = min(_LONGEST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2.0 ** min(self._failures - 1, 10))
            retry_at = None if retry_in is None else self._clock() + retry_in
            self._footprint = _NOTHING
            self._error = None if error is None else ErrorView(error.title, error.message, error.next_step, retry_at)
            self._enter(state, error=error)
        if isinstance(error, LoadFailed):
            error.retry_in_seconds = retry_in
        return error or EncoderError(f"{self.name} was interrupted.")

    # Down

    def _step_down(
        self, rungs: frozenset[State], target: State, if_unused_since: float | None, reason: str | None
    ) -> Outcome:
        with self._turn():
            if self._state not in rungs:
                return Outcome(self.name, "done" if self._state in RESTING else "busy", self._state)
            used_since = if_unused_since is not None and self._last_used != if_unused_since
            if self._leases or used_since:
                return Outcome(self.name, "busy", self._state)
            if self._pinned and not self._closing:
                return Outcome(self.name, "refused", self._state)
            if target is State.IN_RAM and not self._adapter.rests_in_ram:
                target = State.UNLOADED
            before = self._footprint
            self._enter(State.STEPPING_DOWN, reason=reason)
        began = self._clock()
        try:
            target, footprint, error = self._move_down(target)
        except BaseException:
            self._fall(State.UNLOADED, None)
            raise
        with self._turn():
            seconds = self._clock() - began
            self._footprint = footprint
            self._stepped_down_at = self._clock()
            self._offload_seconds = seconds
            self._enter(target, reason=reason, error=error)
            freed = before.on_device + before.in_ram - footprint.on_device - footprint.in_ram
            if target is State.IN_RAM:
                freed = before.on_device - footprint.on_device
            return Outcome(self.name, "done", target, freed, seconds)

    def _move_down(self, target: State) -> tuple[State, Footprint, EncoderError | None]:
        if target is State.UNLOADED:
            self._drop()
            return target, _NOTHING, None
        try:
            self._adapter.offload()
            return target, self._adapter.footprint(), None
        except Exception as error:  # noqa: BLE001 - the adapter edge
            _log.exception("%s could not be moved to RAM, so it is unloaded", self.name)
            self._drop()
            return State.UNLOADED, _NOTHING, MoveFailed(f"{self.name} could not be moved to RAM: {error}")

    def _drop(self) -> None:
        try:
            self._adapter.unload()
        except Exception:  # noqa: BLE001 - the adapter edge
            _log.exception("%s did not unload cleanly", self.name)

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


def _translated(name: str, error: Exception) -> LoadFailed:
    if isinstance(error, LoadFailed):
        return error
    return LoadFailed(
        f"{name} could not be loaded: {type(error).__name__}: {error}",
        next_step="The log has the details; a retry follows at the next use after a delay.",
    )

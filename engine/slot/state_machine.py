"""The state of one slot, its lock, and the events that a change owes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.errors import EncoderError
from engine.events import SlotEvent, StateChanged
from engine.state import RESTING, State


class StateMachine:
    """The only writer of a slot's state.

    Methods other than `locked` are called, and the name is written, under its lock. The lock is for bookkeeping, so
    nothing slow runs under it.
    """

    def __init__(self, name: str, publish: Callable[[SlotEvent], None]) -> None:
        self.name = name
        """The name that events carry."""
        self._publish = publish
        self._changed = threading.Condition()
        self._owed: list[SlotEvent] = []
        self._state = State.UNLOADED

    @property
    def state(self) -> State:
        """The rung on which the weights are, or LOADING or STEPPING_DOWN between two."""
        return self._state

    @property
    def resting(self) -> bool:
        """Whether the state lasts until a request or a timer changes it."""
        return self._state in RESTING

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock, then publish the events that are owed once it is free again."""
        try:
            with self._changed:
                try:
                    yield
                finally:
                    events, self._owed = self._owed, []
        finally:
            for event in events:
                self._publish(event)

    def enter(self, state: State, *, reason: str | None = None, error: EncoderError | None = None) -> None:
        """Change the state; wakes every thread that waits for a change."""
        self.owe(StateChanged(self.name, self._state, state, reason, error))
        self._state = state
        self._changed.notify_all()

    def owe(self, event: SlotEvent) -> None:
        """Have `event` published when the lock is free again."""
        self._owed.append(event)

    def wait(self) -> None:
        """Release the lock until the next change."""
        self._changed.wait()

    def wait_for(self, condition: Callable[[], bool], timeout: float | None = None) -> bool:
        """Release the lock until `condition` holds, for up to `timeout` seconds; returns whether it does."""
        return self._changed.wait_for(condition, timeout)

    def wake(self) -> None:
        """Wake every thread that waits, after a change that is none of the state."""
        self._changed.notify_all()

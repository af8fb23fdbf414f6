"""The leases of one slot: the uses in progress, and the conditions of the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.errors import Closed
from engine.events import TimerSet
from engine.slot.idle_clock import Use
from engine.slot.mover import Mover
from engine.slot.state_machine import StateMachine
from engine.state import ErrorView, State


class Leases:
    """Counts the leases that are out.

    Each method says whether it takes the lock of the state machine or is called under it. `closing` may be read
    without, since it is set once.
    """

    def __init__(self, machine: StateMachine, mover: Mover, clock: Callable[[], float]) -> None:
        self.out = 0
        """The number of leases; while there is one, nothing moves."""
        self.closing = False
        """Whether no new lease is given; set once, by `close`."""
        self._machine = machine
        self._mover = mover
        self._clock = clock
        self._held_back = 0

    def close(self) -> None:
        """Give no lease from now on; called under the lock."""
        self.closing = True
        self._machine.wake()

    def refuse_when_closing(self) -> None:
        """Raise Closed where no new lease is given; called under the lock."""
        if self.closing:
            raise Closed(f"{self._machine.name} is closing.")

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Let new leases wait meanwhile; called under the lock."""
        self._held_back += 1
        try:
            yield
        finally:
            self._held_back -= 1
            self._machine.wake()

    def take(self, known: ErrorView | None) -> State | None:
        """Take a lease on the device, or begin a climb and return the rung that it starts from; takes the lock.

        Waits for moves and climbs of other threads. Raises Closed, and the error of a failed climb while its delay
        lasts; any error but the `known` one was kept since the caller came, so it is raised in any case.
        """
        machine, mover = self._machine, self._mover
        with machine.locked():
            while True:
                self.refuse_when_closing()
                if self._held_back:
                    machine.wait()
                    continue
                if machine.state is State.ON_DEVICE:
                    self.out += 1
                    return None
                if machine.resting:
                    mover.backoff.raise_if_waiting(
                        machine.state, self._clock(), waited=mover.backoff.error is not known
                    )
                    return mover.begin()
                machine.wait()

    def take_after_climb(self, target: State) -> bool:
        """Take the lease of the thread that climbed to the device; a climb to RAM ends without one.

        Returns False, and takes none, where the slot is closing. Called under the lock.
        """
        if self.closing:
            return False
        if target is State.ON_DEVICE:
            self.out += 1
        return True

    def give_back(self, use: Use | None) -> None:
        """End a lease; without a `use` the idle clock goes on as it was. Takes the lock."""
        idle = self._mover.idle
        with self._machine.locked():
            self.out -= 1
            new_timer = use is not None and idle.used(self._clock(), use)
            if new_timer or (idle.keep_alive_seconds == 0 and not self.out):
                self._machine.owe(TimerSet(self._machine.name))
            self._machine.wake()

"""The thread that steps idle encoders down: it sleeps until something can expire, then reads, decides and applies."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from engine import policy
from engine.policy import Decision
from engine.state import EncoderView

_log = logging.getLogger(__name__)

_AFTER_ERROR_SECONDS: Final = 5.0
_LONGEST_SLEEP_SECONDS: Final = 86400.0
"""Windows cannot wait for more than 49 days at once."""
_SHORTEST_SLEEP_SECONDS: Final = 0.05
"""Between two ticks when what was due answered busy."""


class Ladder(Protocol):
    """What the offloader needs of the engine."""

    def views(self) -> Iterable[EncoderView]:
        """Return a snapshot of every encoder."""

    def apply_decision(self, decision: Decision) -> None:
        """Do what was decided, if its evidence still holds."""


class Offloader:
    """Owns the thread `engine-offloader`."""

    def __init__(self, ladder: Ladder, clock: Callable[[], float]) -> None:
        self._ladder = ladder
        self._clock = clock
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; a second start does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="engine-offloader", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Look again now: an encoder woke up, or the settings changed."""
        self._wake.set()

    def stop(self, timeout: float) -> None:
        """End the thread and join it for up to `timeout` seconds."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                _log.warning("%s is still at work after %.1f s", self._thread.name, timeout)

    def tick(self) -> float | None:
        """Step down what is due; return the seconds until something else can be, or None for never."""
        for decision in policy.decide(self._clock(), self._ladder.views()):
            self._ladder.apply_decision(decision)
        now = self._clock()
        deadline = policy.next_deadline(now, self._ladder.views())
        return None if deadline is None else max(_SHORTEST_SLEEP_SECONDS, deadline - now)

    def _run(self) -> None:
        while not self._stopping:
            try:
                sleep = self.tick()
            except Exception:  # noqa: BLE001 - a worker's tick
                _log.exception("the offloader's tick failed")
                sleep = _AFTER_ERROR_SECONDS
            self._wake.wait(None if sleep is None else min(sleep, _LONGEST_SLEEP_SECONDS))
            self._wake.clear()

"""The thread that steps idle encoders down: it sleeps until something can expire, then reads, decides and applies."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from engine.residency import policy
from engine.residency.policy import Shortage, Slots

_log = logging.getLogger(__name__)

_AFTER_ERROR_SECONDS: Final = 5.0
_LONGEST_SLEEP_SECONDS: Final = 86400.0
"""Windows cannot wait for more than 49 days at once."""
_SHORTEST_SLEEP_SECONDS: Final = 0.05
"""Between two ticks when what was due answered busy."""
_WATCH_SECONDS: Final = 1.0
"""Between two looks at a device that other programs share."""


class Devices(Protocol):
    """The owner of the devices' memory, as the offloader sees it."""

    @property
    def watching(self) -> bool:
        """Whether something could become short without any encoder being used."""

    def shortages(self) -> Iterable[Shortage]:
        """Return the shortages of this instant."""

    def relieve(self, shortage: Shortage) -> None:
        """Make idle encoders step down for it."""


class Offloader:
    """Owns the thread `engine-offloader`."""

    def __init__(self, slots: Slots, devices: Devices, clock: Callable[[], float]) -> None:
        self._slots = slots
        self._devices = devices
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
        """Step down what is due or in the way; return the seconds until the next look, or None for never."""
        for decision in policy.decide(self._clock(), self._slots.slots()):
            self._slots.apply_decision(decision)
        if self._devices.watching:
            for shortage in self._devices.shortages():
                self._devices.relieve(shortage)
        now = self._clock()
        deadline = policy.next_deadline(now, self._slots.slots())
        sleep = None if deadline is None else max(_SHORTEST_SLEEP_SECONDS, deadline - now)
        if not self._devices.watching:
            return sleep
        return _WATCH_SECONDS if sleep is None else min(sleep, _WATCH_SECONDS)

    def _run(self) -> None:
        while not self._stopping:
            try:
                sleep = self.tick()
            except Exception:  # noqa: BLE001 - a worker's tick
                _log.exception("the offloader's tick failed")
                sleep = _AFTER_ERROR_SECONDS
            self._wake.wait(None if sleep is None else min(sleep, _LONGEST_SLEEP_SECONDS))
            self._wake.clear()

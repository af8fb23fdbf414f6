"""The thread that follows the machine's sleep, and what it calls."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

_log = logging.getLogger(__name__)


class Source(Protocol):
    """The events of sleep on one system; making one opens nothing, `follow` does."""

    def follow(self, on_sleep: Callable[[], None], on_wake: Callable[[], None]) -> None:
        """Call these two, which raise nothing, until `stop` is called or there are no more events."""

    def stop(self) -> None:
        """Make `follow` end, now or as soon as it begins; from any thread."""


class Watch:
    """The owner of the thread `engine-power`."""

    def __init__(self, source: Source, on_sleep: Callable[[], None], on_wake: Callable[[], None]) -> None:
        self._source = source
        self._on_sleep = on_sleep
        self._on_wake = on_wake
        self._thread = threading.Thread(target=self._run, name="engine-power", daemon=True)
        self._thread.start()

    def close(self, timeout: float = 2.0) -> bool:
        """Stop following and wait up to `timeout` seconds; return False if the thread is still at work."""
        self._source.stop()
        self._thread.join(timeout)
        if not self._thread.is_alive():
            return True
        _log.warning("%s is still at work after %.1f s", self._thread.name, timeout)
        return False

    def _run(self) -> None:
        try:
            self._source.follow(self._sleep, self._wake)
        except Exception:  # noqa: BLE001 - a worker's tick
            _log.exception("the machine's sleep is not followed any more")

    def _sleep(self) -> None:
        _log.info("the machine is about to sleep")
        _attempt(self._on_sleep)

    def _wake(self) -> None:
        _log.info("the machine is awake again")
        _attempt(self._on_wake)


def _attempt(call: Callable[[], None]) -> None:
    try:
        call()
    except Exception:  # noqa: BLE001 - a worker's tick
        _log.exception("not all was done that the machine's sleep asks for")

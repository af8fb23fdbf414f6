"""One encoder's queue and the thread that empties it, one request at a time."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future, InvalidStateError
from typing import Any, Final, TypeVar

from engine.errors import Closed, QueueFull

_log = logging.getLogger(__name__)

T = TypeVar("T")

QUEUE_LIMIT: Final = 1024
"""Requests that may wait for one encoder before new ones are refused."""


class Worker:
    """Runs calls in the order they came on a thread of its own, started by the first call."""

    def __init__(self, name: str, *, limit: int = QUEUE_LIMIT) -> None:
        self._name = name
        self._limit = limit
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._thread: threading.Thread | None = None
        self._running: Future[Any] | None = None
        self._closing = False

    @property
    def queued(self) -> int:
        """The number of calls that wait, without the running one."""
        return len(self._waiting)

    @property
    def at_work(self) -> bool:
        """Whether its thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Queue `call` and return its future; raises QueueFull or Closed."""
        future: Future[T] = Future()
        with self._changed:
            if self._closing:
                raise Closed(f"{self._name} is closing.")
            if len(self._waiting) >= self._limit:
                raise QueueFull(f"{len(self._waiting)} requests already wait for {self._name}.")
            self._waiting.append((future, call))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"engine-{self._name}", daemon=True)
                self._thread.start()
            self._changed.notify()
        return future

    def finish(self, last: Callable[[], object]) -> None:
        """Refuse new calls, and end the thread once those that wait, then `last`, are done; returns at once.

        Where no call ever came there is no thread to end, and `last` runs here.
        """
        with self._changed:
            self._closing = True
            if self._thread is not None:
                self._waiting.append((Future(), last))
                self._changed.notify()
                return
        last()

    def stop_accepting(self) -> None:
        """Refuse new calls and those that wait; the running one goes on."""
        with self._changed:
            self._closing = True
            refused = [future for future, _ in self._waiting]
            self._waiting.clear()
            self._changed.notify()
        for future in refused:
            self._fail(future)

    def abandon(self, timeout: float) -> None:
        """Give the running call up to `timeout` seconds, then fail its future with Closed; the call itself goes on."""
        running = self._running
        if running is not None:
            futures.wait([running], timeout)
            self._fail(running)

    def close(self, timeout: float) -> bool:
        """Refuse the calls that wait, let the running one end, and join for up to `timeout` seconds."""
        self.stop_accepting()
        if self._thread is None:
            return True
        self._thread.join(timeout)
        if self._thread.is_alive():
            _log.warning("%s is still at work after %.1f s", self._thread.name, timeout)
            return False
        return True

    def wait(self, timeout: float) -> None:
        """Wait up to `timeout` seconds until its thread has ended."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _fail(self, future: Future[Any]) -> None:
        with contextlib.suppress(InvalidStateError):  # it ended, or its caller left, at this very moment
            future.set_exception(Closed(f"{self._name} is closing."))

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                future, call = self._waiting.popleft()
                if not future.set_running_or_notify_cancel():
                    continue
                # Under the lock, so that `stop_accepting` and `abandon` miss no call between waiting and running.
                self._running = future
            _serve(future, call)
            self._running = None
            # A request's texts and vectors go now, not when the next request comes.
            del future, call


def _serve(future: Future[Any], call: Callable[[], Any]) -> None:
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - the future carries it to its caller
        _complete(future.set_exception, error)
    else:
        _complete(future.set_result, result)


def _complete(settle: Callable[[Any], None], value: object) -> None:
    with contextlib.suppress(InvalidStateError):  # abandoned meanwhile
        settle(value)

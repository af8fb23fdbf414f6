"""Chains of operations on several encoders that wait for one another without a thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
W = TypeVar("W")


class Submit(Protocol):
    """Queues an operation for an encoder, by name, and returns its future at once."""

    def __call__(self, name: str, operation: Callable[[Any], T], /) -> Future[T]:
        """Return the future; may raise as well."""


class Chain(Generic[W]):
    """Futures of operations that together make one result, `whole`; once that is cancelled no other one begins."""

    def __init__(self, submit: Submit) -> None:
        self._submit = submit
        self.whole: Future[W] = Future()

    def run(self, name: str, operation: Callable[[Any], T], after: Sequence[Future[Any]] = ()) -> Future[T]:
        """Run `operation` on the encoder once all of `after` have ended; where one of those failed, fail like it."""
        ended: Future[T] = Future()

        def begin() -> None:
            if self.whole.cancelled():
                ended.cancel()
                return
            try:
                for one in after:
                    one.result()
                queued = self._submit(name, operation)
            except BaseException as error:  # noqa: BLE001 - the future carries it to its caller
                ended.set_exception(error)
            else:
                queued.add_done_callback(lambda done: complete(ended, done.result))

        _when_all(after, begin)
        return ended

    def finish(self, parts: Sequence[Future[Any]], build: Callable[[], W]) -> Future[W]:
        """Return `whole`: what `build` returns once all `parts` have ended, or the failure of the first that failed."""

        def result() -> W:
            for part in parts:
                part.result()
            return build()

        _when_all(parts, lambda: complete(self.whole, result))
        return self.whole


def complete(future: Future[T], result: Callable[[], T]) -> None:
    """End `future` with what `result` returns or raises, unless it has ended."""
    with contextlib.suppress(InvalidStateError):
        try:
            value = result()
        except BaseException as error:  # noqa: BLE001 - the future carries it to its caller
            future.set_exception(error)
        else:
            future.set_result(value)


def _when_all(futures: Sequence[Future[Any]], then: Callable[[], None]) -> None:
    """Call `then` once all `futures` have ended: in the thread that ended the last, or here."""
    left = len(futures)
    lock = threading.Lock()

    def one_less(_: object) -> None:
        nonlocal left
        with lock:
            left -= 1
            last = left == 0
        if last:
            then()

    if not futures:
        then()
    for future in futures:
        future.add_done_callback(one_less)

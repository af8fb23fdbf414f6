"""Operations that wait for one another: in which order they run, and how they end."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from engine.encoders.chain import Chain, complete


class FakeQueue:
    """Keeps what was queued, by encoder, until it is told to run it."""

    def __init__(self) -> None:
        self.queued: dict[str, tuple[Callable[[Any], Any], Future[Any]]] = {}
        self.refusal: Exception | None = None

    def __call__(self, name: str, operation: Callable[[Any], Any], /) -> Future[Any]:
        if self.refusal is not None:
            raise self.refusal
        future: Future[Any] = Future()
        self.queued[name] = (operation, future)
        return future

    def serve(self, name: str) -> None:
        operation, future = self.queued.pop(name)
        complete(future, lambda: operation(name))


def test_what_waits_for_nothing_is_queued_at_once() -> None:
    queue = FakeQueue()
    chain: Chain[str] = Chain(queue)
    one = chain.run("a", str.upper)
    whole = chain.finish([one], lambda: one.result() * 2)
    assert not whole.done()
    queue.serve("a")
    assert whole.result(0) == "AA"


def test_what_waits_for_two_is_queued_after_the_last() -> None:
    queue = FakeQueue()
    chain: Chain[str] = Chain(queue)
    first, second = chain.run("a", str.upper), chain.run("b", str.upper)
    third = chain.run("c", lambda name: first.result() + second.result() + name, [first, second])
    chain.finish([third], third.result)
    queue.serve("b")
    assert list(queue.queued) == ["a"]
    queue.serve("a")
    queue.serve("c")
    assert chain.whole.result(0) == "ABc"


def test_what_waits_for_a_failure_fails_like_it_and_is_never_queued() -> None:
    queue = FakeQueue()
    chain: Chain[None] = Chain(queue)
    first = chain.run("a", lambda name: 1 / 0)
    second = chain.run("b", str.upper, [first])
    chain.finish([first, second], lambda: None)
    queue.serve("a")
    assert queue.queued == {}
    assert isinstance(second.exception(0), ZeroDivisionError)
    assert isinstance(chain.whole.exception(0), ZeroDivisionError)


def test_the_whole_fails_like_the_first_of_its_parts_once_all_have_ended() -> None:
    queue = FakeQueue()
    chain: Chain[None] = Chain(queue)
    parts = [chain.run("a", lambda name: {}[name]), chain.run("b", lambda name: 1 / 0)]
    chain.finish(parts, lambda: None)
    queue.serve("b")
    assert not chain.whole.done()
    queue.serve("a")
    assert isinstance(chain.whole.exception(0), KeyError)


def test_a_queue_that_refuses_fails_the_whole() -> None:
    queue = FakeQueue()
    queue.refusal = OSError("full")
    chain: Chain[None] = Chain(queue)
    chain.finish([chain.run("a", str.upper)], lambda: None)
    with pytest.raises(OSError, match="full"):
        chain.whole.result(0)


def test_what_cannot_be_put_together_fails_the_whole() -> None:
    queue = FakeQueue()
    chain: Chain[float] = Chain(queue)
    chain.finish([chain.run("a", str.upper)], lambda: 1 / 0)
    queue.serve("a")
    assert isinstance(chain.whole.exception(0), ZeroDivisionError)


def test_once_the_whole_is_cancelled_nothing_more_is_queued() -> None:
    queue = FakeQueue()
    chain: Chain[None] = Chain(queue)
    first = chain.run("a", str.upper)
    second = chain.run("b", str.upper, [first])
    chain.finish([first, second], lambda: None)
    chain.whole.cancel()
    queue.serve("a")
    assert queue.queued == {}
    with pytest.raises(CancelledError):
        second.result(0)


def test_what_has_ended_stays_as_it_ended() -> None:
    future: Future[int] = Future()
    complete(future, lambda: 1)
    complete(future, lambda: 2)
    complete(future, lambda: 1 // 0)
    assert future.result(0) == 1

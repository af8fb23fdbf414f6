"""One encoder's queue: in order, one at a time, with a limit."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
from engine_fakes import LIMIT, Gate

from engine.errors import Closed, QueueFull
from engine.serving.worker import Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker("minilm", limit=3)
    yield worker
    worker.close(LIMIT)


def test_building_a_worker_starts_no_thread() -> None:
    before = set(threading.enumerate())
    assert Worker("minilm").close(0.0)
    assert set(threading.enumerate()) == before


def test_calls_run_in_order_on_one_named_thread(worker: Worker) -> None:
    seen: list[tuple[int, str]] = []
    futures = []
    for number in range(3):
        futures.append(worker.submit(lambda number=number: seen.append((number, threading.current_thread().name))))
    for future in futures:
        future.result(LIMIT)
    assert seen == [(number, "engine-minilm") for number in range(3)]


def test_a_full_queue_refuses_and_says_how_many_wait(worker: Worker) -> None:
    gate = Gate()
    running = worker.submit(gate.passed)
    gate.reached()
    waiting = [worker.submit(lambda: None) for _ in range(3)]
    assert worker.queued == 3
    with pytest.raises(QueueFull, match="3 requests already wait for minilm") as caught:
        worker.submit(lambda: None)
    assert caught.value.retry_in_seconds > 0
    gate.open()
    for future in (running, *waiting):
        future.result(LIMIT)
    worker.submit(lambda: None).result(LIMIT)


def test_a_call_that_fails_gives_its_error_and_the_next_one_runs(worker: Worker) -> None:
    failing = worker.submit(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        failing.result(LIMIT)
    assert worker.submit(lambda: "next").result(LIMIT) == "next"


def test_a_cancelled_call_never_runs(worker: Worker) -> None:
    gate, ran = Gate(), threading.Event()
    worker.submit(gate.passed)
    gate.reached()
    cancelled = worker.submit(ran.set)
    assert cancelled.cancel()
    gate.open()
    worker.submit(lambda: None).result(LIMIT)
    assert not ran.is_set()


def test_closing_refuses_what_waits_and_lets_the_running_call_end(worker: Worker) -> None:
    gate = Gate()
    running = worker.submit(gate.passed)
    gate.reached()
    waiting, cancelled = worker.submit(lambda: None), worker.submit(lambda: None)
    cancelled.cancel()
    assert worker.close(0.0) is False
    with pytest.raises(Closed):
        waiting.result(LIMIT)
    with pytest.raises(Closed):
        worker.submit(lambda: None)
    gate.open()
    running.result(LIMIT)
    assert worker.close(LIMIT) is True


def test_a_close_that_runs_out_of_time_names_the_thread(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    worker.submit(gate.passed)
    gate.reached()
    with caplog.at_level(logging.WARNING):
        worker.close(0.0)
    assert "engine-minilm is still at work" in caplog.text
    gate.open()


def test_finishing_lets_even_a_full_queue_end_and_then_makes_the_last_call(worker: Worker) -> None:
    gate, order = Gate(), []
    worker.submit(gate.passed)
    gate.reached()
    waiting = [worker.submit(lambda number=number: order.append(number)) for number in range(3)]
    done = threading.Event()

    def last() -> None:
        order.append(99)
        done.set()

    worker.finish(last)
    with pytest.raises(Closed):
        worker.submit(lambda: None)
    gate.open()
    for future in waiting:
        future.result(LIMIT)
    assert done.wait(LIMIT)
    assert order == [0, 1, 2, 99]


def test_finishing_an_unused_worker_makes_the_last_call_without_a_thread() -> None:
    before, ran = set(threading.enumerate()), []
    Worker("minilm").finish(lambda: ran.append(threading.current_thread()))
    assert ran == [threading.current_thread()]
    assert set(threading.enumerate()) == before


def test_an_abandoned_call_lets_its_caller_go_and_ends_in_its_own_time(worker: Worker) -> None:
    gate = Gate()
    running, waiting = worker.submit(gate.passed), worker.submit(gate.passed)
    gate.reached()
    worker.stop_accepting()
    worker.abandon(0.0)
    for future in (running, waiting):
        with pytest.raises(Closed):
            future.result(LIMIT)
    assert worker.at_work
    gate.open()
    assert worker.close(LIMIT)

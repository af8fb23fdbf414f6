"""A keep_alive from a request through the engine: bounds, timers and unloads."""

from __future__ import annotations

from typing import Any

import pytest
from engine_bench import Bench
from engine_fakes import LIMIT, Gate, config

from engine import InvalidInput, State
from engine.events import StateChanged


def test_at_keep_alive_0_an_encoder_is_unloaded_after_its_request_is_answered(bench: Bench) -> None:
    request = bench.engine.submit("one", lambda adapter: adapter.encode(["abc"]).vectors, keep_alive=0.0)
    assert request.result(LIMIT) == [[3.0]]
    assert bench.states["one"] is State.ON_DEVICE
    assert bench.engine._offloader.tick() is None
    assert bench.states["one"] is State.UNLOADED
    assert bench.shelf["one"].moves == ["load", "resume", "unload"]
    last = [event for event in bench.events if isinstance(event, StateChanged)][-1]
    assert (last.new, last.reason) == (State.UNLOADED, "a request asked for it (keep_alive 0)")


def test_at_keep_alive_0_the_offloader_is_woken_and_needs_no_time_to_pass(bench: Bench) -> None:
    bench.engine.start()
    bench.use(keep_alive=0.0)
    bench.until("one", State.UNLOADED)
    assert bench.shelf["one"].moves == ["load", "resume", "unload"]


def test_the_offloader_is_woken_for_a_new_timer_and_not_for_every_use(bench: Bench) -> None:
    bench.use()
    woken: list[str] = []
    bench.engine._offloader.wake = lambda: woken.append("woken")  # type: ignore[method-assign]
    bench.use()
    assert woken == []
    bench.use(keep_alive=300.0)
    assert woken == ["woken"]


def test_a_use_without_a_keep_alive_keeps_the_unload_that_one_before_asked_for_until_it_happened(
    bench: Bench,
) -> None:
    bench.use(keep_alive=0.0)
    bench.use()
    bench.engine._offloader.tick()
    assert bench.states["one"] is State.UNLOADED
    bench.use()
    assert bench.engine._offloader.tick() == 30.0
    assert bench.states["one"] is State.ON_DEVICE


def test_at_keep_alive_0_nothing_is_unloaded_while_another_request_runs_or_waits(bench: Bench) -> None:
    bench.use(keep_alive=0.0)
    gate = Gate()
    running = bench.engine.submit("one", lambda adapter: gate.passed())
    gate.reached()
    waiting = bench.engine.submit("one", lambda adapter: list(adapter.weights))
    bench.engine._offloader.tick()
    assert bench.states["one"] is State.ON_DEVICE
    gate.open()
    assert (running.result(LIMIT), waiting.result(LIMIT)) == (None, ["device"])
    bench.engine._offloader.tick()
    assert bench.states["one"] is State.UNLOADED
    assert bench.engine.view("one").loads == 1


def test_a_request_that_fails_at_keep_alive_0_is_followed_by_an_unload_too(bench: Bench) -> None:
    with pytest.raises(ZeroDivisionError):
        bench.engine.call("one", lambda adapter: 1 / 0, keep_alive=0.0)
    bench.engine._offloader.tick()
    assert bench.states["one"] is State.UNLOADED


def test_a_keep_alive_moves_the_step_down_and_a_negative_one_takes_it_away(bench: Bench) -> None:
    bench.use(keep_alive=300.0)
    assert bench.engine._offloader.tick() == 300.0
    bench.clock.now += 299.0
    bench.engine._offloader.tick()
    assert bench.states["one"] is State.ON_DEVICE
    bench.use(keep_alive=-1.0)
    bench.clock.now += 1e6
    assert bench.engine._offloader.tick() is None
    assert bench.states["one"] is State.ON_DEVICE
    bench.use(keep_alive=5.0)
    bench.clock.now += 5.0
    bench.engine._offloader.tick()
    assert bench.states["one"] is State.IN_RAM


@pytest.mark.parametrize(
    ("asked", "longest", "kept"),
    [
        (600.0, 60.0, 60.0),
        (-1.0, 60.0, 60.0),
        (60.0, 60.0, 60.0),
        (5.0, 60.0, 5.0),
        (0.0, 60.0, 0.0),
        (None, 60.0, None),
        (600.0, 0.0, 600.0),
        (-1.0, 0.0, -1.0),
        (0.0, 0.0, 0.0),
    ],
)
def test_a_keep_alive_is_bounded_but_0_and_none_stay_what_they_are(
    asked: float | None, longest: float, kept: float | None
) -> None:
    bench = Bench(config(max_keep_alive_seconds=longest))
    bench.use("one", keep_alive=asked)
    bench.engine.submit("two", lambda adapter: None, keep_alive=asked).result(LIMIT)
    assert [view.keep_alive_seconds for view in bench.engine.views()] == [kept, kept]
    bench.engine.close()


@pytest.mark.parametrize(
    "asked",
    [
        "10m",
        "",
        float("nan"),
        float("inf"),
        float("-inf"),
        [5],
        {},
        b"5",
        5 + 0j,
        pytest.param(10**400, id="too long for a float"),
    ],
)
def test_a_keep_alive_that_is_no_number_of_seconds_is_refused_and_stops_no_timer(bench: Bench, asked: Any) -> None:
    bench.use(keep_alive=20.0)
    bench.clock.now += 5.0
    before, deadline = bench.engine.view("one"), bench.engine._offloader.tick()
    bench.events.clear()
    with pytest.raises(InvalidInput, match="no number of seconds") as refused:
        bench.use(keep_alive=asked)
    assert refused.value.param == "keep_alive"
    assert refused.value.next_step == "Give seconds, 0 to unload after the use, or a negative number to stay."
    assert (bench.engine.view("one"), bench.engine._offloader.tick(), bench.events) == (before, deadline, [])
    assert deadline == 15.0
    assert bench.engine._encoders.find("one").worker.queued == 0


def test_a_keep_alive_is_refused_before_anything_is_loaded_for_it(bench: Bench) -> None:
    with pytest.raises(InvalidInput):
        bench.use(keep_alive="10m")  # type: ignore[arg-type]
    assert bench.shelf["one"].calls == []


@pytest.mark.parametrize(("asked", "kept"), [(7, 7.0), (True, 1.0), (False, 0.0), (-0.0, 0.0)])
def test_whatever_python_counts_as_a_number_is_one(bench: Bench, asked: float, kept: float) -> None:
    bench.use(keep_alive=asked)
    assert bench.engine.view("one").keep_alive_seconds == kept


def test_a_new_bound_is_in_force_at_once(bench: Bench) -> None:
    bench.use(keep_alive=-1.0)
    bench.engine.apply(config(max_keep_alive_seconds=60.0))
    assert bench.engine.view("one").keep_alive_seconds == 60.0
    bench.use(keep_alive=-1.0)
    assert bench.engine.view("one").keep_alive_seconds == 60.0

"""A keep_alive that a use sets: how long it holds and which timer events it causes."""

from __future__ import annotations

import pytest
from engine_fakes import LIMIT, SlotBench, started

from engine.events import Event, TimerSet
from engine.residency import policy


def deadline(bench: SlotBench) -> float | None:
    """Seconds from now until the encoder may step down."""
    at = bench.view().next_deadline(bench.clock.now)
    return None if at is None else at - bench.clock.now


def test_a_keep_alive_takes_the_place_of_the_idle_timeout_from_the_end_of_the_use(bench: SlotBench) -> None:
    with bench.slot.lease(keep_alive=300.0):
        bench.clock.now += 50.0
        assert bench.view().keep_alive_seconds is None
    assert (bench.view().keep_alive_seconds, deadline(bench)) == (300.0, 300.0)


def test_a_keep_alive_of_0_wants_an_unload_at_once(bench: SlotBench) -> None:
    bench.use(keep_alive=0.0)
    assert deadline(bench) == 0.0
    (decision,) = policy.decide(bench.clock.now, [bench.view()])
    assert decision.step is policy.Step.UNLOAD


def test_a_negative_keep_alive_lets_it_stay_but_not_against_a_step_down_by_hand(bench: SlotBench) -> None:
    bench.use(keep_alive=-1.0)
    assert deadline(bench) is None
    assert bench.slot.offload().result == "done"


def test_a_keep_alive_holds_until_a_use_names_another(bench: SlotBench) -> None:
    bench.use(keep_alive=300.0)
    bench.use()
    bench.slot.warm()
    assert deadline(bench) == 300.0
    bench.use(keep_alive=-1.0)
    assert deadline(bench) is None
    bench.use(keep_alive=10.0)
    assert deadline(bench) == 10.0


@pytest.mark.parametrize("verb", ["offload", "unload"])
def test_a_step_down_takes_the_keep_alive_away(bench: SlotBench, verb: str) -> None:
    bench.use(keep_alive=300.0)
    getattr(bench.slot, verb)()
    assert bench.view().keep_alive_seconds is None
    bench.use()
    assert deadline(bench) == 30.0


@pytest.mark.parametrize("verb", ["offload", "unload"])
def test_a_step_down_that_does_not_happen_leaves_the_keep_alive(bench: SlotBench, verb: str) -> None:
    bench.use(keep_alive=300.0)
    with bench.slot.lease():
        assert getattr(bench.slot, verb)().result == "busy"
    bench.slot.pin(True)
    assert getattr(bench.slot, verb)().result == "refused"
    assert bench.view().keep_alive_seconds == 300.0


def test_a_use_that_raises_sets_its_keep_alive_all_the_same(bench: SlotBench) -> None:
    with pytest.raises(ZeroDivisionError), bench.slot.lease(keep_alive=0.0):
        raise ZeroDivisionError
    assert (bench.view().keep_alive_seconds, bench.view().in_flight) == (0.0, 0)
    assert (deadline(bench), bench.timers_set) == (0.0, 1)


@pytest.mark.parametrize("keep_alive", [0.0, 300.0, -1.0])
def test_a_keep_alive_is_told_when_its_use_ends(bench: SlotBench, keep_alive: float) -> None:
    with bench.slot.lease(keep_alive=keep_alive):
        assert bench.timers_set == 0
    assert bench.events[-1] == TimerSet("minilm")
    assert bench.timers_set == 1


@pytest.mark.parametrize("keep_alive", [300.0, -1.0])
def test_a_keep_alive_that_is_asked_for_again_sets_no_other_timer_and_is_not_told(
    bench: SlotBench, keep_alive: float
) -> None:
    bench.use(keep_alive)
    bench.clock.now += 5.0
    bench.events.clear()
    bench.use(keep_alive)
    assert bench.events == []
    assert bench.view().keep_alive_seconds == keep_alive
    assert deadline(bench) == (300.0 if keep_alive > 0 else None), "from the end of the second use"


def test_a_keep_alive_of_0_is_told_at_every_use_that_ends_alone(bench: SlotBench) -> None:
    for told in (1, 2, 3):
        bench.use(keep_alive=0.0)
        assert bench.timers_set == told


@pytest.mark.parametrize("sticky", [None, 300.0, -1.0])
def test_a_use_that_names_no_keep_alive_tells_nothing(bench: SlotBench, sticky: float | None) -> None:
    bench.use(sticky)
    bench.events.clear()
    bench.use()
    assert bench.events == []


def test_where_an_unload_is_wanted_the_end_of_every_last_use_is_told(bench: SlotBench) -> None:
    with bench.slot.lease():
        bench.use(keep_alive=0.0)
        assert bench.timers_set == 1
        assert deadline(bench) is None
        with bench.slot.lease():
            pass
        assert bench.timers_set == 1
    assert (bench.timers_set, deadline(bench)) == (2, 0.0)


def test_a_timer_is_told_under_no_lock_when_the_view_shows_it(bench: SlotBench) -> None:
    seen = []

    def look(event: Event) -> None:
        if isinstance(event, TimerSet):
            seen.append(started(bench.view).result(LIMIT))

    bench.slot._machine._publish = look
    bench.use(keep_alive=0.0)
    assert [(view.keep_alive_seconds, view.in_flight) for view in seen] == [(0.0, 0)]

"""Weights that are read into RAM ahead of the first use."""

from __future__ import annotations

import pytest
from engine_fakes import SIZE, SlotBench, failure, started

from engine.errors import Closed, LoadFailed, Unavailable
from engine.residency import policy
from engine.state import State

ON_DEVICE, IN_RAM, UNLOADED = State.ON_DEVICE, State.IN_RAM, State.UNLOADED


def test_a_preload_reads_the_weights_into_ram_from_where_the_first_use_goes_up(bench: SlotBench) -> None:
    def take_three_seconds(call: str) -> None:
        bench.clock.now += 3.0 if call == "resume" else 0.0

    bench.adapter.during = take_three_seconds
    bench.slot.preload()
    assert bench.adapter.calls == ["probe", "load", "fault_in", "footprint"]
    assert bench.path == [State.LOADING, IN_RAM]
    view = bench.view()
    assert (view.bytes_on_device, view.bytes_in_ram, view.bytes_total) == (0, SIZE, SIZE)
    assert (view.loads, view.load_seconds, view.reload_seconds, view.last_used) == (1, 2.0, None, 1000.0)
    bench.use()
    view = bench.view()
    assert bench.adapter.moves == ["load", "resume"]
    assert (view.state, view.loads, view.reload_seconds, view.bytes_in_ram) == (ON_DEVICE, 1, 3.0, 0)


@pytest.mark.parametrize("state", [ON_DEVICE, IN_RAM])
def test_a_preload_leaves_an_encoder_that_is_up_alone(bench: SlotBench, state: State) -> None:
    bench.use()
    if state is IN_RAM:
        bench.slot.offload()
    bench.adapter.calls.clear()
    bench.events.clear()
    before = bench.view()
    bench.slot.preload()
    assert (bench.adapter.calls, bench.events, bench.view()) == ([], [], before)


def test_a_preload_waits_for_a_climb_in_progress_and_then_has_nothing_to_do(bench: SlotBench) -> None:
    gate = bench.adapter.hold("load")
    user = started(bench.use)
    gate.reached()
    preload = started(bench.slot.preload)
    bench.waiting.expect(1)
    assert not preload.done()
    gate.open()
    assert [failure(user), failure(preload)] == [None, None]
    assert bench.adapter.moves == ["load", "resume"]
    assert not bench.adapter.overlapped


def test_a_preload_that_waits_for_a_step_down_then_reads_again(bench: SlotBench) -> None:
    bench.use()
    gate = bench.adapter.hold("unload")
    move = started(bench.slot.unload)
    gate.reached()
    preload = started(bench.slot.preload)
    bench.waiting.expect(1)
    gate.open()
    assert [failure(move), failure(preload)] == [None, None]
    assert (bench.state, bench.view().loads) == (IN_RAM, 2)
    assert not bench.adapter.overlapped


def test_a_use_that_arrives_during_a_preload_waits_and_then_goes_up_from_ram(bench: SlotBench) -> None:
    gate = bench.adapter.hold("fault_in")
    preload = started(bench.slot.preload)
    gate.reached()
    users = [started(bench.use) for _ in range(4)]
    bench.waiting.expect(4)
    gate.open()
    assert [failure(each) for each in (preload, *users)] == [None] * 5
    assert bench.adapter.moves == ["load", "resume"]
    assert bench.path == [State.LOADING, IN_RAM, State.LOADING, ON_DEVICE]


@pytest.mark.parametrize("call", ["load", "fault_in", "footprint"])
def test_a_failed_preload_is_kept_and_shown_and_leaves_nothing_behind(bench: SlotBench, call: str) -> None:
    bench.adapter.fail(call, RuntimeError("bad block"))
    with pytest.raises(LoadFailed, match="bad block"):
        bench.slot.preload()
    view = bench.view()
    assert (view.state, view.bytes_in_ram, bench.adapter.weights) == (State.FAILED, 0, set())
    assert view.error is not None
    assert "bad block" in view.error.message
    assert view.error.retry_at == 1005.0
    for again in (bench.use, bench.slot.preload):
        with pytest.raises(LoadFailed, match="bad block"):
            again()
    assert bench.adapter.calls.count("load") == 1
    bench.clock.now += 5.0
    bench.use()
    assert (bench.state, bench.view().error) == (ON_DEVICE, None)


def test_a_preload_of_what_is_not_there_says_so(bench: SlotBench) -> None:
    bench.adapter.fail("probe", Unavailable("torch is missing."))
    with pytest.raises(Unavailable):
        bench.slot.preload()
    assert bench.state is State.UNAVAILABLE
    assert bench.adapter.moves == ["unload"]


def test_an_encoder_in_ram_by_preload_is_not_unloaded_by_the_timeout_because_it_never_stepped_down(
    bench: SlotBench,
) -> None:
    bench.slot.preload()
    view = bench.view()
    assert (view.stepped_down_at, view.next_deadline(bench.clock.now)) == (None, None)
    bench.clock.now += 1e6
    assert policy.decide(bench.clock.now, [bench.view()]) == []


def test_with_the_idle_timeout_at_0_the_unload_timeout_never_fires() -> None:
    bench = SlotBench(idle=0.0, unload=900.0)
    for climb in (bench.slot.preload, bench.use):
        climb()
        bench.clock.now += 1e6
        assert policy.decide(bench.clock.now, [bench.view()]) == []
        assert bench.view().next_deadline(bench.clock.now) is None


def test_the_unload_timeout_counts_from_the_stepping_down_and_no_longer_after_the_next_use(bench: SlotBench) -> None:
    bench.use()
    bench.clock.now += 40.0
    bench.slot.offload()
    assert bench.view().next_deadline(bench.clock.now) == 1940.0
    bench.use()
    assert bench.view().stepped_down_at is None


def test_an_encoder_in_ram_by_preload_can_be_unloaded_by_hand(bench: SlotBench) -> None:
    bench.slot.preload()
    assert bench.slot.offload().freed_bytes == 0
    assert bench.state is IN_RAM
    outcome = bench.slot.unload()
    assert (outcome.result, outcome.state, outcome.freed_bytes) == ("done", UNLOADED, SIZE)


def test_a_preload_of_a_closing_slot_is_refused_and_one_that_outlives_the_close_is_dropped(bench: SlotBench) -> None:
    gate = bench.adapter.hold("fault_in")
    preloads = [started(bench.slot.preload)]
    gate.reached()
    preloads.append(started(bench.slot.preload))
    bench.waiting.expect(1)
    assert bench.slot.close(0.0) is False
    gate.open()
    assert all(isinstance(failure(preload), Closed) for preload in preloads)
    assert (bench.state, bench.adapter.weights) == (UNLOADED, set())
    with pytest.raises(Closed):
        bench.slot.preload()

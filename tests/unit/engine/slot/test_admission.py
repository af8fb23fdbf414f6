"""What a slot and its requests do without room: the next way, other encoders, the CPU, or a clear error."""

from __future__ import annotations

import pytest
from admission_fakes import GPU, ON_CPU, STREAMED, WHOLE, Bench
from engine_fakes import failure, started

from engine.devices.placement import CPU, Needs
from engine.errors import DeviceLost, InvalidInput, LoadFailed, NoRoom, OutOfMemory
from engine.events import StateChanged
from engine.state import State

FULL = OutOfMemory("gpu is full.")


# Climbs


def test_the_first_way_that_fits_is_taken() -> None:
    bench = Bench(WHOLE, STREAMED)
    bench.use()
    assert bench.adapter.placements == [WHOLE]
    assert bench.placer.asked == [Needs(GPU, 100)]


def test_a_climb_that_ran_out_of_memory_goes_the_next_way_and_the_view_says_how_it_stands() -> None:
    bench = Bench(WHOLE, STREAMED)
    bench.adapter.fail("resume", FULL)
    bench.use()
    assert bench.adapter.placements == [STREAMED]
    assert (bench.state, bench.view().note) == (State.ON_DEVICE, "Streamed in 50 bytes.")
    assert bench.reasons == [None], "streaming is as asked: nobody is told"


def test_without_room_it_is_read_for_the_cpu_instead_and_that_is_told_once() -> None:
    bench = Bench(ON_CPU)
    bench.use()
    view = bench.view()
    assert (view.device, view.chosen_device, view.note) == (CPU, GPU, ON_CPU.reason)
    bench.slot.offload()
    bench.use()
    assert bench.reasons == [ON_CPU.reason, None]
    assert bench.adapter.moves.count("load") == 2, "one for the device, one for the CPU; none at coming back"


def test_it_is_read_for_the_device_again_when_there_is_room_again() -> None:
    bench = Bench(ON_CPU)
    bench.use()
    bench.slot.offload()
    bench.placer.offers = (WHOLE,)
    bench.use()
    assert (bench.view().device, bench.view().note) == (GPU, None)
    assert bench.adapter.weights == {"device"}


def test_without_any_way_the_weights_rest_in_ram_and_the_next_use_tries_again_at_once() -> None:
    bench = Bench()
    with pytest.raises(NoRoom, match="no room") as caught:
        bench.use()
    assert caught.value.retry_in_seconds == 1.0
    assert (bench.state, bench.adapter.weights, bench.view().error) == (State.IN_RAM, {"ram"}, None)
    assert bench.view().note == "gpu has no room."
    assert bench.view().in_flight == 0
    bench.placer.offers = (WHOLE,)
    bench.use()
    assert (bench.state, bench.view().note, bench.view().loads) == (State.ON_DEVICE, None, 1)


def test_that_there_is_no_room_is_told_once_however_often_an_app_tries() -> None:
    bench = Bench()
    for _ in range(3):
        with pytest.raises(NoRoom):
            bench.use()
    told = [event.reason for event in bench.events if isinstance(event, StateChanged) and event.reason]
    assert told == ["gpu has no room."]


def test_without_any_way_what_cannot_rest_is_unloaded() -> None:
    bench = Bench()
    bench.adapter.cannot_rest = "It writes into its own weights."
    with pytest.raises(NoRoom):
        bench.use()
    assert (bench.state, bench.adapter.weights) == (State.UNLOADED, set())


def test_everyone_who_waits_for_a_climb_without_room_gets_the_error() -> None:
    bench = Bench()
    gate = bench.adapter.hold("load")
    first = started(bench.use)
    gate.reached()
    second = started(bench.use)
    gate.open()
    assert isinstance(failure(first), NoRoom)
    assert isinstance(failure(second), NoRoom)


def test_a_load_that_fails_for_another_reason_is_a_failed_load() -> None:
    bench = Bench(WHOLE)
    bench.adapter.fail("resume", RuntimeError("the cable is out"))
    with pytest.raises(LoadFailed, match="the cable is out"):
        bench.use()
    assert (bench.state, bench.adapter.weights) == (State.FAILED, set())


def test_one_that_cannot_rest_is_not_read_again_for_every_request_that_finds_no_room() -> None:
    bench = Bench()
    bench.adapter.cannot_rest = "Its home is the disk."
    for _ in range(3):
        with pytest.raises(NoRoom):
            bench.use()
    assert bench.adapter.moves.count("load") == 1
    bench.clock.now += 1.0
    bench.placer.offers = (WHOLE,)
    bench.use()
    assert bench.state is State.ON_DEVICE


def test_the_turn_at_a_device_ends_before_an_encoder_is_read_for_the_cpu() -> None:
    bench = Bench(ON_CPU)
    inside: list[int] = []
    bench.adapter.during = lambda call: inside.append(bench.placer.inside) if call in ("load", "resume") else None
    bench.use()
    assert inside == [0, 0, 0], "nobody else waits while files are read"
    other = Bench(WHOLE)
    other.adapter.during = lambda call: inside.append(other.placer.inside) if call == "resume" else None
    other.use()
    assert inside[-1] == 1


# Lost devices

LOST = DeviceLost("gpu does not compute any more.")


def test_a_device_that_is_lost_at_a_climb_is_left_at_once_for_one_that_computes() -> None:
    bench = Bench(WHOLE)
    bench.use()
    bench.slot.offload()
    bench.adapter.fail("resume", LOST)
    bench.use()
    assert (bench.state, bench.view().loads) == (State.ON_DEVICE, 2)


def test_a_device_that_is_lost_twice_in_a_row_is_a_failed_load() -> None:
    bench = Bench(WHOLE)
    bench.adapter.fail("resume", LOST, LOST)
    with pytest.raises(LoadFailed, match="does not compute any more"):
        bench.use()
    assert bench.state is State.FAILED


def test_a_request_whose_device_is_lost_is_served_by_fresh_weights() -> None:
    bench = Bench(WHOLE)
    bench.adapter.fail("encode", LOST)
    assert bench.request() == [[1.0]]
    assert bench.adapter.moves == ["load", "resume", "unload", "load", "resume"]
    assert "gpu does not compute any more." in [e.reason for e in bench.events if isinstance(e, StateChanged)]


def test_a_request_that_loses_every_device_is_an_error_and_the_next_one_begins_anew() -> None:
    bench = Bench(WHOLE)
    bench.adapter.fail("encode", LOST, LOST)
    with pytest.raises(DeviceLost):
        bench.request()
    assert bench.view().in_flight == 0
    assert bench.request() == [[1.0]]


# Uses


def test_one_that_outgrew_its_budget_steps_down_and_comes_up_anew_before_it_is_used() -> None:
    bench = Bench(WHOLE)
    bench.use()
    bench.placer.offers = (STREAMED,)
    bench.placer.reclaims = ["over the VRAM budget"]
    bench.use()
    assert bench.adapter.placements == [WHOLE, STREAMED]
    assert bench.adapter.moves == ["load", "resume", "offload", "resume"]


def test_a_batch_without_memory_runs_once_more_after_others_stepped_down() -> None:
    bench = Bench(WHOLE)
    bench.adapter.fail("encode", FULL)
    assert bench.request() == [[1.0]]
    assert bench.placer.cleared == [(GPU, "minilm")]
    assert bench.adapter.moves == ["load", "resume"]


def test_a_batch_that_never_fits_brings_the_encoder_up_another_way() -> None:
    bench = Bench(WHOLE)
    bench.placer.modes_left = 1
    bench.adapter.fail("encode", FULL, FULL)
    bench.adapter.during = lambda call: setattr(bench.placer, "offers", (STREAMED,)) if call == "offload" else None
    assert bench.request() == [[1.0]]
    assert bench.adapter.placements == [WHOLE, STREAMED]


def test_a_batch_that_fits_in_no_way_is_a_clear_error_and_the_encoder_serves_on() -> None:
    bench = Bench(WHOLE)
    bench.adapter.fail("encode", FULL, FULL)
    with pytest.raises(NoRoom, match="no memory left for a request to minilm") as caught:
        bench.request()
    assert "shorter inputs" in str(caught.value)
    assert bench.view().in_flight == 0
    assert bench.request() == [[1.0]]


def test_a_pinned_encoder_does_not_move_for_its_batches_either() -> None:
    bench = Bench(WHOLE, pinned=True)
    bench.placer.modes_left = 1
    bench.adapter.fail("encode", FULL, FULL)
    with pytest.raises(NoRoom):
        bench.request()
    assert bench.state is State.ON_DEVICE
    assert bench.placer.modes_left == 1


def test_another_error_of_a_request_is_its_own() -> None:
    bench = Bench(WHOLE)
    bench.adapter.fail("encode", InvalidInput("no text"))
    with pytest.raises(InvalidInput):
        bench.request()
    assert bench.placer.cleared == []

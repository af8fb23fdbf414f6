"""How a slot steps down: refusals, failed moves, and the bytes that each move freed."""

from __future__ import annotations

import pytest
from engine_fakes import LIMIT, SIZE, SlotBench, failure, started
from slot_cases import errors_told

from engine.errors import CannotRest, LoadFailed, MoveFailed
from engine.events import StateChanged
from engine.settings.effective import Timeouts
from engine.state import State

ON_DEVICE, IN_RAM, UNLOADED = State.ON_DEVICE, State.IN_RAM, State.UNLOADED


@pytest.mark.parametrize("verb", ["offload", "unload"])
def test_a_leased_encoder_is_never_moved(bench: SlotBench, verb: str) -> None:
    with bench.slot.lease():
        with bench.slot.lease():
            assert getattr(bench.slot, verb)().result == "busy"
        assert getattr(bench.slot, verb)().result == "busy"
        assert bench.adapter.moves == ["load", "resume"]
    outcome = getattr(bench.slot, verb)()
    assert (outcome.result, outcome.freed_bytes) == ("done", SIZE)


def test_an_encoder_that_is_on_its_way_up_is_not_moved_down(bench: SlotBench) -> None:
    gate = bench.adapter.hold("load")
    user = started(bench.use)
    gate.reached()
    assert bench.slot.offload().result == "busy"
    gate.open()
    assert failure(user) is None
    assert bench.adapter.moves == ["load", "resume"]


@pytest.mark.parametrize("verb", ["offload", "unload"])
def test_an_offload_refuses_a_slot_that_was_used_since_the_decision(bench: SlotBench, verb: str) -> None:
    bench.use()
    decided_on = bench.view().last_used
    bench.clock.now += 60.0
    bench.use()
    assert getattr(bench.slot, verb)(if_unused_since=decided_on).result == "busy"
    assert bench.state is ON_DEVICE
    assert getattr(bench.slot, verb)(if_unused_since=bench.view().last_used).result == "done"


def test_an_unload_refuses_a_slot_that_went_up_and_down_again_since_the_decision(bench: SlotBench) -> None:
    bench.use()
    bench.slot.offload()
    decided_on = bench.view().last_used
    bench.clock.now += 900.0
    bench.use()
    bench.slot.offload()
    assert bench.slot.unload(if_unused_since=decided_on).result == "busy"
    assert bench.state is IN_RAM


@pytest.mark.parametrize(
    ("verb", "call", "moves"),
    [
        ("offload", "offload", ["load", "resume", "offload", "resume"]),
        ("unload", "unload", ["load", "resume", "unload", "load", "resume"]),
    ],
)
def test_a_request_that_arrives_during_a_move_down_waits_and_then_goes_up_again(
    bench: SlotBench, verb: str, call: str, moves: list[str]
) -> None:
    bench.use()
    gate = bench.adapter.hold(call)
    move = started(getattr(bench.slot, verb))
    gate.reached()
    users = [started(bench.use) for _ in range(4)]
    bench.waiting.expect(4)
    assert bench.state is State.STEPPING_DOWN
    assert not any(user.done() for user in users)
    gate.open()
    assert move.result(LIMIT).result == "done"
    assert [failure(user) for user in users] == [None] * 4
    assert bench.adapter.moves == moves
    assert not bench.adapter.overlapped
    assert (bench.state, bench.adapter.weights) == (ON_DEVICE, {"device"})


def test_a_failed_offload_never_strands_a_slot_or_leaves_weights_on_two_devices(bench: SlotBench) -> None:
    bench.use()
    bench.adapter.fail("offload", RuntimeError("out of memory"))
    outcome = bench.slot.offload()
    assert (outcome.result, outcome.state) == ("done", UNLOADED)
    assert bench.adapter.weights == set()
    view = bench.view()
    assert (view.bytes_on_device, view.bytes_in_ram) == (0, 0)
    told = bench.events[-1]
    assert isinstance(told, StateChanged)
    assert isinstance(told.error, MoveFailed)
    bench.use()
    assert bench.adapter.weights == {"device"}


def test_a_failed_resume_never_strands_a_slot_or_leaves_weights_on_two_devices(bench: SlotBench) -> None:
    bench.use()
    bench.slot.offload()
    bench.adapter.fail("resume", RuntimeError("out of memory"))
    with pytest.raises(LoadFailed):
        bench.use()
    assert (bench.state, bench.adapter.weights) == (State.FAILED, set())
    bench.slot.retry()
    assert bench.adapter.moves[-2:] == ["load", "resume"]


def test_a_failed_unload_never_strands_a_slot(bench: SlotBench) -> None:
    bench.use()
    bench.adapter.fail("unload", RuntimeError("no"))
    assert bench.slot.unload().state is UNLOADED
    bench.use()
    assert bench.state is ON_DEVICE


@pytest.mark.parametrize("call", ["offload", "unload", "footprint"])
def test_an_interrupted_move_never_strands_a_slot(bench: SlotBench, call: str) -> None:
    bench.use()
    bench.adapter.fail(call, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        (bench.slot.unload if call == "unload" else bench.slot.offload)()
    assert bench.state is UNLOADED
    assert bench.adapter.weights == set()
    bench.use()
    assert bench.state is ON_DEVICE


def test_an_encoder_that_is_known_not_to_rest_in_ram_is_unloaded_instead_and_says_so_from_its_load_on(
    bench: SlotBench,
) -> None:
    bench.adapter.cannot_rest = "Its weights are in plain memory."
    bench.use()
    assert bench.view().note == "Its weights are in plain memory."
    outcome = bench.slot.offload()
    assert "offload" not in bench.adapter.calls
    assert (outcome.result, outcome.state, outcome.freed_bytes) == ("done", UNLOADED, SIZE)
    assert (outcome.reason, bench.view().note) == ("Its weights are in plain memory.",) * 2
    assert bench.path == [State.LOADING, ON_DEVICE, State.STEPPING_DOWN, UNLOADED]
    assert errors_told(bench) == []


def test_weights_that_turn_out_not_to_survive_in_ram_are_unloaded_which_is_no_failure(bench: SlotBench) -> None:
    bench.use()
    assert bench.view().note is None
    bench.adapter.fail("offload", CannotRest("It writes into its own weights."))
    outcome = bench.slot.offload(reason="idle for 30 s")
    assert (outcome.result, outcome.state, outcome.freed_bytes) == ("done", UNLOADED, SIZE)
    assert (outcome.reason, bench.view().note) == ("It writes into its own weights.",) * 2
    assert bench.adapter.weights == set()
    assert errors_told(bench) == []
    assert bench.view().error is None


@pytest.mark.parametrize("device", ["gpu", "cpu"])
def test_a_system_that_gives_back_too_little_makes_it_unload_instead(device: str) -> None:
    bench = SlotBench(device=device)
    bench.use()
    bench.adapter.kept["offload"] = SIZE // 2
    outcome = bench.slot.offload()
    assert (outcome.result, outcome.state, outcome.freed_bytes) == ("done", UNLOADED, SIZE)
    assert bench.adapter.moves == ["load", "resume", "offload", "unload"]
    view = bench.view()
    assert (view.bytes_on_device, view.bytes_in_ram) == (0, 0)
    assert view.note is not None
    assert view.note.startswith("The system took back only")
    assert errors_told(bench) == []


@pytest.mark.parametrize("verb", ["offload", "unload"])
def test_bytes_that_stay_after_an_unload_are_never_called_freed(bench: SlotBench, verb: str) -> None:
    bench.use()
    bench.adapter.kept |= {"offload": SIZE, "unload": 40}
    outcome = getattr(bench.slot, verb)()
    assert (outcome.result, outcome.state, outcome.freed_bytes) == ("refused", UNLOADED, SIZE - 40)
    view = bench.view()
    assert (view.bytes_on_device, view.bytes_in_ram) == (0, 40)
    assert outcome.reason is not None
    assert outcome.reason.endswith("of its weights was not given back, because something still refers to them.")
    assert view.note == outcome.reason
    (error,) = errors_told(bench)
    assert isinstance(error, MoveFailed)
    assert (error.title, error.message) == ("Memory not given back", f"minilm: {outcome.reason}")


def test_a_note_goes_when_the_next_load_has_nothing_to_say(bench: SlotBench) -> None:
    bench.use()
    bench.adapter.kept["unload"] = SIZE
    bench.slot.unload()
    bench.adapter.kept.clear()
    bench.use()
    assert bench.view().note is None
    assert bench.slot.offload().reason is None


@pytest.mark.parametrize(("device", "freed", "in_ram", "freed_later"), [("gpu", SIZE, SIZE, SIZE), ("cpu", SIZE, 0, 0)])
def test_freed_bytes_are_what_left_the_device_on_a_gpu_and_what_left_ram_on_a_cpu(
    device: str, freed: int, in_ram: int, freed_later: int
) -> None:
    bench = SlotBench(device=device)
    bench.use()
    assert bench.slot.offload().freed_bytes == freed
    assert (bench.state, bench.view().bytes_in_ram) == (IN_RAM, in_ram)
    assert bench.slot.unload().freed_bytes == freed_later
    assert bench.view().bytes_in_ram == 0
    bench.use()
    assert bench.slot.unload().freed_bytes == SIZE


@pytest.mark.parametrize("device", ["gpu", "cpu"])
@pytest.mark.parametrize("from_ram", [False, True])
def test_an_unload_after_which_something_refers_to_the_weights_is_refused_with_the_reason(
    device: str, from_ram: bool
) -> None:
    bench = SlotBench(device=device)
    bench.use()
    if from_ram:
        bench.slot.offload()
    bench.adapter.clinging = True
    outcome = bench.slot.unload()
    assert (outcome.result, outcome.state) == ("refused", UNLOADED)
    assert outcome.reason is not None
    assert outcome.reason.endswith("of its weights was not given back, because something still refers to them.")
    assert bench.view().note == outcome.reason
    (error,) = errors_told(bench)
    assert isinstance(error, MoveFailed)
    assert (error.title, error.message) == ("Memory not given back", f"minilm: {outcome.reason}")
    bench.adapter.clinging = False
    bench.use()
    assert bench.slot.unload().result == "done"


def test_bytes_that_the_system_does_not_tell_are_unknown_in_the_outcome_and_the_view_and_no_failure() -> None:
    bench = SlotBench(device="cpu")
    bench.adapter.blind = True
    bench.use()
    assert (bench.view().bytes_on_device, bench.view().bytes_in_ram) == (None, 0)
    outcome = bench.slot.offload()
    assert (outcome.result, outcome.state, outcome.freed_bytes, outcome.reason) == ("done", IN_RAM, None, None)
    view = bench.view()
    assert (view.bytes_on_device, view.bytes_in_ram, view.bytes_total) == (0, None, SIZE)
    outcome = bench.slot.unload()
    assert (outcome.result, outcome.freed_bytes, outcome.reason) == ("done", None, None)
    assert (bench.view().note, errors_told(bench)) == (None, [])


@pytest.mark.parametrize("verb", ["offload", "unload"])
def test_a_sleeping_encoder_has_nothing_to_step_down(bench: SlotBench, verb: str) -> None:
    outcome = getattr(bench.slot, verb)()
    assert (outcome.result, outcome.state, outcome.freed_bytes) == ("done", UNLOADED, 0)
    assert bench.adapter.calls == []
    assert bench.events == []


@pytest.mark.parametrize("verb", ["offload", "unload"])
def test_a_pinned_encoder_refuses_to_step_down_until_unpinned(verb: str) -> None:
    bench = SlotBench(pinned=True)
    bench.use()
    refused = getattr(bench.slot, verb)()
    assert (refused.result, refused.state, refused.reason) == ("refused", ON_DEVICE, "minilm is pinned.")
    assert bench.adapter.moves == ["load", "resume"]
    bench.slot.pin(False)
    assert getattr(bench.slot, verb)().result == "done"


def test_pinning_loads_nothing(bench: SlotBench) -> None:
    assert bench.slot.pin(True).state is UNLOADED
    assert bench.view().pinned
    assert bench.adapter.calls == []


def test_new_terms_come_into_force_at_once_and_leave_the_pin_alone_unless_told(bench: SlotBench) -> None:
    bench.slot.pin(True)
    bench.slot.configure(Timeouts(1.0, 2.0))
    view = bench.view()
    assert (view.idle_timeout_seconds, view.unload_timeout_seconds, view.pinned) == (1.0, 2.0, True)
    bench.slot.configure(Timeouts(1.0, 2.0), pinned=False)
    assert not bench.view().pinned

"""What a slot guarantees to everybody who uses one encoder at once."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from dataclasses import replace

import pytest
from engine_fakes import LIMIT, SIZE, Gate, SlotBench, failure, started

from engine.devices.placement import Footprint
from engine.errors import CannotRest, Closed, LoadFailed, MoveFailed, Unavailable
from engine.events import Event, StateChanged, TimerSet
from engine.residency import policy
from engine.settings.effective import Timeouts
from engine.state import State

ON_DEVICE, IN_RAM, UNLOADED = State.ON_DEVICE, State.IN_RAM, State.UNLOADED


@pytest.fixture
def bench() -> SlotBench:
    return SlotBench()


def errors_told(bench: SlotBench) -> list[Exception]:
    """Every error that was published, in order."""
    return [event.error for event in bench.events if isinstance(event, StateChanged) and event.error]


# Up


def test_one_load_for_many_first_callers(bench: SlotBench) -> None:
    gate = bench.adapter.hold("load")
    users = [started(bench.use) for _ in range(16)]
    gate.reached()
    bench.waiting.expect(15)
    assert bench.state is State.LOADING
    gate.open()
    assert [failure(user) for user in users] == [None] * 16
    assert bench.adapter.moves == ["load", "resume"]
    assert bench.view().loads == 1


def test_a_first_climb_probes_loads_and_resumes(bench: SlotBench) -> None:
    bench.use()
    assert bench.adapter.calls == ["probe", "load", "resume", "footprint"]
    bench.slot.offload()
    bench.adapter.calls.clear()
    bench.use()
    assert bench.adapter.calls == ["stale", "resume", "footprint"]


def test_warming_faults_all_pages_in_and_a_first_use_does_not(bench: SlotBench) -> None:
    bench.slot.warm()
    assert bench.adapter.calls == ["probe", "load", "fault_in", "resume", "footprint"]
    bench.slot.unload()
    bench.adapter.calls.clear()
    bench.use()
    assert bench.adapter.calls == ["probe", "load", "resume", "footprint"]


def test_warming_faults_in_what_waits_in_ram_too(bench: SlotBench) -> None:
    bench.use()
    bench.slot.offload()
    bench.adapter.calls.clear()
    bench.slot.warm()
    assert bench.adapter.calls == ["stale", "fault_in", "resume", "footprint"]


def test_pages_that_cannot_be_read_fail_the_warming_and_leave_nothing_behind(bench: SlotBench) -> None:
    bench.adapter.fail("fault_in", OSError("bad block"))
    with pytest.raises(LoadFailed, match="bad block"):
        bench.slot.warm()
    assert (bench.state, bench.adapter.weights) == (State.FAILED, set())


# Another device than the settings ask for


FALLBACK = "It computes on the CPU, because torch finds no cuda here."


def reasons(bench: SlotBench) -> list[str | None]:
    """The reason of every arrival from below."""
    return [event.reason for event in bench.events if isinstance(event, StateChanged) and event.old is State.LOADING]


def test_a_fallback_to_another_device_is_shown_in_the_view_and_told_once(bench: SlotBench) -> None:
    bench.adapter.note = FALLBACK
    for _ in range(3):
        bench.use()
        assert bench.view().note == FALLBACK
        bench.slot.unload()
    assert reasons(bench) == [FALLBACK, None, None]
    assert errors_told(bench) == []


@pytest.mark.parametrize("climb", ["warm", "preload"])
def test_a_fallback_is_told_by_climbs_that_nobody_waits_for_too(bench: SlotBench, climb: str) -> None:
    bench.adapter.note = FALLBACK
    getattr(bench.slot, climb)()
    bench.use()
    assert (reasons(bench)[0], bench.view().note) == (FALLBACK, FALLBACK)
    assert reasons(bench).count(FALLBACK) == 1


def test_a_fallback_is_told_again_only_when_it_is_another_one(bench: SlotBench) -> None:
    for note in (None, FALLBACK, "It computes on the CPU, because cuda:0 does not compute: lost.", None, FALLBACK):
        bench.adapter.note = note
        bench.use()
        bench.slot.unload()
    assert reasons(bench) == [
        None,
        FALLBACK,
        "It computes on the CPU, because cuda:0 does not compute: lost.",
        None,
        FALLBACK,
    ]


def test_a_fallback_says_nothing_when_the_encoder_only_rests_and_wakes(bench: SlotBench) -> None:
    bench.adapter.note = FALLBACK
    bench.use()
    bench.slot.offload()
    bench.use()
    assert reasons(bench) == [FALLBACK, None]
    assert bench.view().note == FALLBACK


def test_leases_are_shared(bench: SlotBench) -> None:
    with bench.slot.lease(), bench.slot.lease() as adapter:
        assert adapter is bench.adapter
        assert bench.view().in_flight == 2
    assert bench.view().in_flight == 0


# With steps of 1000 s the delay is always over when a waiter looks: it must not become the next one to try.
@pytest.mark.parametrize("step", [0.0, 1000.0])
def test_a_failed_load_fails_every_waiter_once(step: float) -> None:
    bench = SlotBench(step=step)
    gate = bench.adapter.hold("load")
    bench.adapter.fail("load", RuntimeError("no such tensor"))
    users = [started(bench.use) for _ in range(8)]
    gate.reached()
    bench.waiting.expect(7)
    gate.open()
    errors = [failure(user) for user in users]
    assert all(isinstance(error, LoadFailed) for error in errors)
    assert {str(error) for error in errors} == {str(errors[0])}
    assert bench.adapter.calls.count("load") == 1
    assert bench.state is State.FAILED
    assert bench.adapter.weights == set()


def test_a_failed_load_is_not_tried_again_before_its_delay_is_over(bench: SlotBench) -> None:
    bench.adapter.fail("load", RuntimeError("no such tensor"))
    with pytest.raises(LoadFailed, match="no such tensor") as first:
        bench.use()
    assert first.value.retry_in_seconds == 5.0
    bench.clock.now += 4.0
    for _ in range(100):
        with pytest.raises(LoadFailed, match="no such tensor") as later:
            bench.use()
        assert later.value.retry_in_seconds == pytest.approx(1.0)
    assert bench.adapter.calls.count("load") == 1
    bench.clock.now += 1.0
    bench.use()
    assert bench.state is ON_DEVICE


def test_the_delay_after_failures_grows_to_a_limit_and_a_success_resets_it(bench: SlotBench) -> None:
    delays = []
    for _ in range(9):
        bench.adapter.fail("load", RuntimeError("still not"))
        with pytest.raises(LoadFailed) as caught:
            bench.use()
        delays.append(caught.value.retry_in_seconds)
        error = bench.view().error
        assert error is not None
        assert error.retry_at == bench.clock.now + delays[-1]
        bench.clock.now = error.retry_at
    assert delays == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    bench.use()
    assert bench.view().error is None
    bench.slot.unload()
    bench.adapter.fail("load", RuntimeError("again"))
    with pytest.raises(LoadFailed) as caught:
        bench.use()
    assert caught.value.retry_in_seconds == 5.0


def test_a_retry_by_hand_does_not_wait_for_the_delay(bench: SlotBench) -> None:
    bench.adapter.fail("load", RuntimeError("once"), RuntimeError("twice"))
    for retry in (bench.use, bench.slot.retry):
        with pytest.raises(LoadFailed):
            retry()
    assert bench.state is State.FAILED
    bench.slot.retry()
    assert bench.state is ON_DEVICE
    assert bench.view().error is None


def test_a_failed_load_keeps_its_words_for_whoever_looks(bench: SlotBench) -> None:
    bench.adapter.fail("load", LoadFailed("No GPU.", title="No CUDA", next_step="Set device."))
    with pytest.raises(LoadFailed) as caught:
        bench.use()
    assert caught.value.__cause__ is None
    kept = bench.view().error
    assert kept is not None
    assert (kept.title, kept.message, kept.next_step) == ("No CUDA", "No GPU.", "Set device.")
    with pytest.raises(LoadFailed) as again:
        bench.use()
    assert (again.value.title, str(again.value)) == ("No CUDA", "No GPU. Set device.")


def test_a_foreign_error_is_translated_and_logged_with_its_traceback(
    bench: SlotBench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.adapter.fail("load", OSError("bad block"))
    with caplog.at_level(logging.ERROR), pytest.raises(LoadFailed, match="OSError: bad block") as caught:
        bench.use()
    assert isinstance(caught.value.__cause__, OSError)
    assert "Traceback" in caplog.text


def test_what_a_failed_load_left_is_dropped_even_when_dropping_fails(bench: SlotBench) -> None:
    bench.adapter.fail("load", RuntimeError("half"))
    bench.adapter.fail("unload", RuntimeError("not even that"))
    with pytest.raises(LoadFailed, match="half"):
        bench.use()
    assert bench.state is State.FAILED
    bench.slot.retry()
    assert bench.adapter.weights == {"device"}


def test_a_footprint_that_cannot_be_taken_fails_the_load_and_drops_it(bench: SlotBench) -> None:
    bench.adapter.fail("footprint", RuntimeError("lost"))
    with pytest.raises(LoadFailed):
        bench.use()
    assert bench.adapter.weights == set()


def test_an_interrupted_load_leaves_the_encoder_unloaded(bench: SlotBench) -> None:
    bench.adapter.fail("load", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        bench.use()
    assert (bench.state, bench.adapter.weights) == (UNLOADED, set())
    bench.use()


def test_an_unavailable_encoder_is_probed_again_at_the_next_use(bench: SlotBench) -> None:
    bench.adapter.fail("probe", *[Unavailable("torch is missing.", next_step="pip install torch")] * 2)
    for _ in range(2):
        with pytest.raises(Unavailable, match="torch is missing"):
            bench.use()
        kept = bench.view().error
        assert bench.state is State.UNAVAILABLE
        assert kept is not None
        assert (kept.next_step, kept.retry_at) == ("pip install torch", None)
    assert "load" not in bench.adapter.calls
    bench.use()
    assert (bench.state, bench.view().error) == (ON_DEVICE, None)


def test_those_who_waited_for_an_unavailable_encoder_are_told_without_another_probe(bench: SlotBench) -> None:
    gate = bench.adapter.hold("probe")
    bench.adapter.fail("probe", Unavailable("torch is missing."))
    users = [started(bench.use) for _ in range(6)]
    gate.reached()
    bench.waiting.expect(5)
    gate.open()
    assert all(isinstance(failure(user), Unavailable) for user in users)
    assert bench.adapter.calls.count("probe") == 1


# Down


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


# Into RAM ahead of the first use


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


# Files that change


def test_files_that_changed_while_it_was_on_its_device_are_read_again(bench: SlotBench) -> None:
    bench.use()
    bench.adapter.changed = "model.safetensors was replaced"
    with bench.slot.lease() as adapter:
        assert adapter.weights == {"device"}
        assert adapter.stale() is None
    assert bench.adapter.moves == ["load", "resume", "unload", "load", "resume"]
    assert bench.path == [State.LOADING, ON_DEVICE, State.STEPPING_DOWN, UNLOADED, State.LOADING, ON_DEVICE]
    told = {event.new: event.reason for event in bench.events if isinstance(event, StateChanged)}
    assert told[UNLOADED] == "model.safetensors was replaced since it was loaded"
    assert (bench.view().loads, bench.view().in_flight, errors_told(bench)) == (2, 0, [])


def test_files_that_did_not_change_are_looked_at_once_a_lease_and_not_after_a_climb(bench: SlotBench) -> None:
    bench.use()
    assert bench.adapter.calls.count("stale") == 0
    for looks in (1, 2, 3):
        bench.use()
        assert bench.adapter.calls.count("stale") == looks
    assert bench.view().loads == 1


def test_warming_notices_changed_files_too(bench: SlotBench) -> None:
    bench.use()
    bench.adapter.changed = "model.safetensors was replaced"
    bench.slot.warm()
    assert (bench.state, bench.view().loads, bench.adapter.changed) == (ON_DEVICE, 2, None)


def test_a_pinned_encoder_is_read_again_too() -> None:
    bench = SlotBench(pinned=True)
    bench.use()
    bench.adapter.changed = "model.safetensors was replaced"
    bench.use()
    assert (bench.state, bench.view().loads) == (ON_DEVICE, 2)


def test_a_lease_that_is_out_ends_before_changed_files_are_read_again(bench: SlotBench) -> None:
    with bench.slot.lease() as adapter:
        bench.adapter.changed = "model.safetensors was replaced"
        user = started(bench.use)
        bench.waiting.expect(1)
        assert not user.done()
        assert (bench.state, adapter.weights) == (ON_DEVICE, {"device"})
        assert bench.adapter.moves == ["load", "resume"]
    assert failure(user) is None
    assert bench.adapter.moves == ["load", "resume", "unload", "load", "resume"]
    assert not bench.adapter.overlapped


def test_many_who_notice_changed_files_at_once_cause_one_reload(bench: SlotBench) -> None:
    bench.use()
    bench.adapter.changed = "model.safetensors was replaced"
    gates = [bench.adapter.hold("stale") for _ in range(8)]
    users = [started(bench.use) for _ in gates]
    for gate in gates:
        gate.reached()
    assert bench.view().in_flight == 8
    for gate in gates:
        gate.open()
    assert [failure(user) for user in users] == [None] * 8
    assert bench.adapter.moves == ["load", "resume", "unload", "load", "resume"]
    assert not bench.adapter.overlapped
    assert (bench.view().loads, bench.view().in_flight) == (2, 0)


def late_user(bench: SlotBench) -> tuple[Gate, Future[None]]:
    """One who has noticed changed files, has let go, and is held back before it drops them."""
    bench.use(keep_alive=0.0)
    bench.adapter.changed = "model.safetensors was replaced"
    gate, told = Gate(), threading.Event()

    def hold_the_first_back(event: Event) -> None:
        # The end of the last lease is told where keep_alive is 0.
        if isinstance(event, TimerSet) and not told.is_set():
            told.set()
            gate.passed()

    bench.slot._machine._publish = hold_the_first_back
    user = started(bench.use)
    gate.reached()
    return gate, user


def test_one_who_noticed_changed_files_before_another_read_them_again_does_not_drop_the_new_ones(
    bench: SlotBench,
) -> None:
    gate, user = late_user(bench)
    bench.use()
    with bench.slot.lease():
        gate.open()
        assert failure(user) is None
    assert bench.view().loads == 2
    assert bench.adapter.moves == ["load", "resume", "unload", "load", "resume"]


def test_one_who_noticed_changed_files_does_not_drop_them_beside_a_step_down(bench: SlotBench) -> None:
    gate, user = late_user(bench)
    offload = bench.adapter.hold("offload")
    move = started(bench.slot.offload)
    offload.reached()
    gate.open()
    bench.waiting.expect(1)
    assert "unload" not in bench.adapter.calls
    offload.open()
    assert [failure(move), failure(user)] == [None, None]
    assert bench.adapter.moves == ["load", "resume", "offload", "unload", "load", "resume"]
    assert not bench.adapter.overlapped


@pytest.mark.parametrize("step", [0.0, 1000.0])
def test_changed_files_that_cannot_be_read_fail_all_who_noticed_and_are_never_resumed(step: float) -> None:
    bench = SlotBench(step=step)
    bench.use()
    bench.adapter.changed = "model.safetensors is gone"
    bench.adapter.calls.clear()
    reload = bench.adapter.hold("load")
    bench.adapter.fail("load", RuntimeError("no such file"))
    gates = [bench.adapter.hold("stale") for _ in range(4)]
    users = [started(bench.use) for _ in gates]
    for gate in gates:
        gate.reached()
    for gate in gates:
        gate.open()
    reload.reached()
    bench.waiting.expect_together(3)
    reload.open()
    errors = [failure(user) for user in users]
    assert [type(error) for error in errors] == [LoadFailed] * 4
    assert all("no such file" in str(error) for error in errors)
    assert bench.adapter.calls.count("load") == 1
    assert "resume" not in bench.adapter.calls
    assert (bench.state, bench.adapter.weights, bench.view().in_flight) == (State.FAILED, set(), 0)


def test_changed_files_that_are_gone_make_it_unavailable(bench: SlotBench) -> None:
    bench.use()
    bench.adapter.changed = "model.safetensors is gone"
    bench.adapter.fail("probe", Unavailable("The model's folder is missing."))
    with pytest.raises(Unavailable, match="folder is missing"):
        bench.use()
    view = bench.view()
    assert (view.state, view.bytes_on_device, bench.adapter.weights) == (State.UNAVAILABLE, 0, set())


def test_files_that_changed_while_it_was_in_ram_are_read_again_instead_of_resumed(
    bench: SlotBench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.use()
    bench.slot.offload()
    bench.adapter.calls.clear()
    bench.adapter.changed = "model.safetensors was truncated"
    with caplog.at_level(logging.INFO):
        bench.use()
    assert bench.adapter.calls == ["stale", "unload", "footprint", "probe", "load", "resume", "footprint"]
    assert "minilm is loaded again: model.safetensors was truncated" in caplog.text
    assert (bench.state, bench.view().loads, bench.view().reload_seconds) == (ON_DEVICE, 2, None)


def test_files_that_changed_while_it_was_in_ram_and_cannot_be_read_fail_clearly_and_are_never_resumed(
    bench: SlotBench,
) -> None:
    bench.slot.preload()
    bench.adapter.changed = "model.safetensors was truncated"
    gate = bench.adapter.hold("load")
    bench.adapter.fail("load", LoadFailed("The file ends too early.", next_step="Copy it again."))
    users = [started(bench.use) for _ in range(4)]
    gate.reached()
    bench.waiting.expect(3)
    gate.open()
    assert {str(failure(user)) for user in users} == {"The file ends too early. Copy it again."}
    assert "resume" not in bench.adapter.calls
    assert (bench.state, bench.adapter.weights) == (State.FAILED, set())


def test_one_who_waits_to_read_changed_files_again_is_told_when_the_slot_closes(bench: SlotBench) -> None:
    with bench.slot.lease():
        bench.adapter.changed = "model.safetensors was replaced"
        user = started(bench.use)
        bench.waiting.expect(1)
        assert bench.slot.close(0.0) is False
        assert isinstance(failure(user), Closed)
        assert bench.adapter.weights == {"device"}
    assert (bench.state, bench.adapter.weights) == (UNLOADED, set())
    assert bench.adapter.moves == ["load", "resume", "unload"]


def test_closing_waits_for_the_drop_of_changed_files(bench: SlotBench) -> None:
    bench.use()
    bench.adapter.changed = "model.safetensors was replaced"
    gate = bench.adapter.hold("unload")
    user = started(bench.use)
    gate.reached()
    closing = started(lambda: bench.slot.close(LIMIT))
    bench.waiting.expect(1)
    gate.open()
    assert closing.result(LIMIT) is True
    assert isinstance(failure(user), Closed)
    assert (bench.state, bench.adapter.weights) == (UNLOADED, set())


# keep_alive


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


# Closing


def test_closing_waits_for_leases(bench: SlotBench) -> None:
    with bench.slot.lease():
        closing = started(lambda: bench.slot.close(LIMIT))
        bench.waiting.expect(1)
        assert not closing.done()
        assert bench.adapter.weights == {"device"}
        with pytest.raises(Closed):
            bench.use()
    assert closing.result(LIMIT) is True
    assert (bench.state, bench.adapter.weights) == (UNLOADED, set())


def test_closing_waits_with_a_limit_and_the_last_use_then_drops_everything(bench: SlotBench) -> None:
    with bench.slot.lease():
        assert bench.slot.close(0.0) is False
        assert bench.adapter.weights == {"device"}
    assert (bench.state, bench.adapter.weights) == (UNLOADED, set())


def test_closing_waits_for_the_drop_that_the_last_use_began(bench: SlotBench) -> None:
    gate = bench.adapter.hold("unload")
    leased, finish = threading.Event(), threading.Event()

    def use() -> None:
        with bench.slot.lease():
            leased.set()
            assert finish.wait(LIMIT)

    user = started(use)
    assert leased.wait(LIMIT)
    closing = started(lambda: bench.slot.close(LIMIT))
    bench.waiting.expect(1)
    finish.set()
    gate.reached()
    assert not closing.done()
    gate.open()
    assert closing.result(LIMIT) is True
    assert failure(user) is None
    assert bench.adapter.weights == set()


def test_closing_a_pinned_encoder_drops_it() -> None:
    bench = SlotBench(pinned=True)
    bench.use()
    assert bench.slot.close(0.0)
    assert bench.adapter.weights == set()


def test_a_load_that_outlives_the_close_is_dropped_at_its_end(bench: SlotBench) -> None:
    gate = bench.adapter.hold("load")
    users = [started(bench.use) for _ in range(3)]
    gate.reached()
    bench.waiting.expect(2)
    assert bench.slot.close(0.0) is False
    gate.open()
    assert all(isinstance(failure(user), Closed) for user in users)
    assert (bench.state, bench.adapter.weights) == (UNLOADED, set())


def test_a_move_to_ram_that_outlives_the_close_is_dropped_at_its_end(bench: SlotBench) -> None:
    bench.use()
    gate = bench.adapter.hold("offload")
    move = started(bench.slot.offload)
    gate.reached()
    assert bench.slot.close(0.0) is False
    gate.open()
    assert failure(move) is None
    assert (bench.state, bench.adapter.weights) == (UNLOADED, set())


# Locks, waiters and looking


@pytest.mark.parametrize("call", ["probe", "load", "fault_in", "footprint", "stale", "offload", "resume", "unload"])
def test_nothing_slow_runs_under_a_lock(bench: SlotBench, call: str) -> None:
    asked, seen = 0, []

    def look(current: str) -> None:
        nonlocal asked
        if current == call:
            asked += 1
            # The error of a look that found the lock taken may end in the log: what counts is that none is missing.
            seen.append(started(bench.view).result(LIMIT).state)

    bench.adapter.during = look
    bench.slot.preload()
    bench.use()
    bench.slot.offload()
    bench.adapter.changed = "model.safetensors was replaced"
    bench.use()
    bench.adapter.changed = "model.safetensors was replaced"
    bench.use()
    bench.slot.unload()
    bench.adapter.fail("load", RuntimeError("no"))
    with pytest.raises(LoadFailed):
        bench.use()
    assert len(seen) == asked > 0
    # Of the two pure looks, the files of an encoder that is up are looked at while it stays where it is.
    assert set(seen) <= {State.LOADING, State.STEPPING_DOWN} | ({ON_DEVICE} if call == "stale" else set())


def test_measuring_runs_under_no_lock(bench: SlotBench) -> None:
    bench.use()
    seen: list[State] = []
    bench.adapter.during = lambda call: seen.append(started(bench.view).result(LIMIT).state)
    bench.view(measured=True)
    assert seen == [ON_DEVICE]


def test_events_are_published_under_no_lock_and_in_order(bench: SlotBench) -> None:
    seen = []
    bench.slot._machine._publish = lambda event: seen.append((event, started(bench.view).result(LIMIT)))
    bench.use()
    bench.slot.offload(reason="idle for 30 s")
    states = [event.new for event, _ in seen]
    assert states == [State.LOADING, ON_DEVICE, State.STEPPING_DOWN, IN_RAM]
    assert [event.old for event, _ in seen] == [UNLOADED, *states[:-1]]
    assert [event.reason for event, _ in seen] == [None, None, "idle for 30 s", "idle for 30 s"]


@pytest.mark.parametrize(
    ("held", "error", "settled", "raised"),
    [
        ("load", None, ON_DEVICE, None),
        ("load", RuntimeError("no"), State.FAILED, LoadFailed),
        ("load", Unavailable("no"), State.UNAVAILABLE, Unavailable),
        ("offload", None, IN_RAM, None),
        ("offload", RuntimeError("no"), UNLOADED, None),
        ("unload", None, UNLOADED, None),
    ],
)
def test_every_settled_transition_wakes_all_waiters(
    bench: SlotBench, held: str, error: Exception | None, settled: State, raised: type[Exception] | None
) -> None:
    if held != "load":
        bench.use()
    gate = bench.adapter.hold(held)
    if error:
        bench.adapter.fail(held, error)
    mover = started({"load": bench.slot.warm, "offload": bench.slot.offload, "unload": bench.slot.unload}[held])
    gate.reached()
    users = [started(bench.use) for _ in range(8)]
    bench.waiting.expect(8)
    gate.open()
    failures = [failure(user) for user in users]
    if raised is None:
        assert failures == [None] * 8
    else:
        assert [type(error) for error in failures] == [raised] * 8
    failure(mover)
    assert settled in bench.path


def test_closing_wakes_all_waiters(bench: SlotBench) -> None:
    bench.use()
    gate = bench.adapter.hold("offload")
    move = started(bench.slot.offload)
    gate.reached()
    users = [started(bench.use) for _ in range(4)]
    bench.waiting.expect(4)
    bench.slot.close(0.0)
    assert all(isinstance(failure(user), Closed) for user in users)
    gate.open()
    assert failure(move) is None


def test_looking_never_loads_nor_resets_a_clock(bench: SlotBench) -> None:
    for _ in range(20):
        bench.view()
    assert bench.adapter.calls == []
    bench.use()
    used = bench.view()
    for _ in range(20):
        bench.clock.now += 1.0
        assert bench.view() == used
    assert used.next_deadline(bench.clock.now) == 1030.0
    bench.slot.offload()
    rested = bench.view()
    bench.clock.now += 100.0
    assert bench.view() == rested


def test_the_idle_clock_counts_from_the_end_of_the_last_use(bench: SlotBench) -> None:
    with bench.slot.lease("app"):
        bench.clock.now += 50.0
    view = bench.view()
    assert (view.last_used, view.last_used_by) == (1050.0, "app")


def test_warming_starts_the_idle_clock_of_a_load_but_does_not_reset_it(bench: SlotBench) -> None:
    bench.slot.warm()
    bench.clock.now += 10.0
    bench.slot.warm()
    view = bench.view()
    assert (view.last_used, view.first_encode_seconds, view.in_flight) == (1000.0, None, 0)


def test_a_use_that_fails_ends_its_lease_and_counts_as_a_use(bench: SlotBench) -> None:
    with pytest.raises(ZeroDivisionError), bench.slot.lease("app"):
        raise ZeroDivisionError
    view = bench.view()
    assert (view.in_flight, view.last_used_by) == (0, "app")
    assert bench.slot.offload().result == "done"


def test_a_view_says_where_the_bytes_are_and_what_each_move_took(bench: SlotBench) -> None:
    def take_three_seconds(call: str) -> None:
        bench.clock.now += 3.0 if call in ("offload", "resume") else 0.0

    bench.adapter.during = take_three_seconds
    with bench.slot.lease():
        bench.clock.now += 2.0
    view = bench.view()
    assert (view.device, view.revision, view.import_seconds, view.load_seconds) == ("gpu", "1", 1.0, 2.0)
    assert (view.bytes_on_device, view.bytes_in_ram, view.bytes_total) == (SIZE, 0, SIZE)
    assert (view.first_encode_seconds, view.reload_seconds, view.offload_seconds) == (2.0, None, None)
    outcome = bench.slot.offload()
    view = bench.view()
    assert (view.bytes_on_device, view.bytes_in_ram, view.offload_seconds) == (0, SIZE, 3.0)
    assert (outcome.freed_bytes, outcome.seconds, view.stepped_down_at) == (SIZE, 3.0, bench.clock.now)
    bench.use()
    view = bench.view()
    assert (view.reload_seconds, view.loads, view.bytes_in_ram) == (3.0, 1, 0)


@pytest.mark.parametrize("state", [ON_DEVICE, IN_RAM])
def test_a_measured_view_shows_the_bytes_of_this_instant_and_another_those_after_the_last_move(
    bench: SlotBench, state: State
) -> None:
    bench.use()
    if state is IN_RAM:
        bench.slot.offload()
    before = bench.view()
    bench.adapter.calls.clear()
    bench.adapter.footprint = lambda: Footprint(7, 8, 9)  # type: ignore[method-assign]
    assert bench.view() == before
    measured = bench.view(measured=True)
    assert measured == replace(before, bytes_on_device=7, bytes_in_ram=8)
    assert bench.view() == before
    assert bench.adapter.calls == []


def test_a_view_that_is_not_measured_asks_the_adapter_for_nothing(bench: SlotBench) -> None:
    bench.use()
    bench.adapter.calls.clear()
    bench.view()
    assert bench.adapter.calls == []
    bench.view(measured=True)
    assert bench.adapter.calls == ["footprint"]


def test_an_encoder_that_holds_nothing_is_not_measured(bench: SlotBench) -> None:
    bench.view(measured=True)
    assert bench.adapter.calls == []
    for call, error in (("probe", Unavailable("torch is missing.")), ("load", RuntimeError("no"))):
        bench.adapter.fail(call, error)
        with pytest.raises((LoadFailed, Unavailable)):
            bench.use()
        bench.adapter.calls.clear()
        assert bench.view(measured=True).bytes_in_ram == 0
        assert bench.adapter.calls == []


@pytest.mark.parametrize(("held", "state"), [("load", State.LOADING), ("offload", State.STEPPING_DOWN)])
def test_an_encoder_that_moves_is_not_measured(bench: SlotBench, held: str, state: State) -> None:
    if held == "offload":
        bench.use()
    gate = bench.adapter.hold(held)
    mover = started(bench.slot.warm if held == "load" else bench.slot.offload)
    gate.reached()
    bench.adapter.calls.clear()
    assert bench.view(measured=True).state is state
    assert bench.adapter.calls == []
    gate.open()
    assert failure(mover) is None


# What must not happen even then


def test_a_look_at_the_files_that_fails_gives_the_lease_back(bench: SlotBench) -> None:
    bench.use()
    bench.adapter.fail("stale", OSError("no such device"))
    with pytest.raises(OSError, match="no such device"):
        bench.use()
    assert bench.view().in_flight == 0


def test_figures_that_cannot_be_taken_stop_no_step_down(bench: SlotBench) -> None:
    bench.use()
    bench.adapter.fail("footprint", RuntimeError("no smaps"))
    assert bench.slot.offload().result == "done"
    assert bench.slot.unload().result == "done"


def test_figures_that_cannot_be_taken_stop_no_look(bench: SlotBench) -> None:
    bench.use()
    bench.adapter.fail("footprint", RuntimeError("no smaps"))
    assert bench.view(measured=True).state is ON_DEVICE


def test_a_drop_of_changed_files_that_is_interrupted_strands_nobody(bench: SlotBench) -> None:
    bench.use()
    bench.adapter.changed = "model.safetensors was replaced"
    bench.adapter.fail("unload", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        bench.use()
    assert bench.state is UNLOADED


def test_a_cleaning_up_that_is_interrupted_strands_nobody(bench: SlotBench) -> None:
    bench.adapter.fail("load", RuntimeError("no"))
    bench.adapter.fail("unload", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        bench.use()
    assert bench.state is State.FAILED


def test_what_a_failed_climb_leaves_in_memory_is_shown(bench: SlotBench) -> None:
    bench.adapter.kept["unload"] = SIZE
    bench.adapter.fail("resume", RuntimeError("no"))
    with pytest.raises(LoadFailed):
        bench.use()
    assert bench.view().bytes_in_ram == SIZE
    assert "not given back" in str(bench.view().note)


def test_a_failed_load_ends_what_a_request_set(bench: SlotBench) -> None:
    bench.use(keep_alive=-1)
    bench.adapter.changed = "model.safetensors was replaced"
    bench.adapter.fail("load", RuntimeError("no"))
    with pytest.raises(LoadFailed):
        bench.use()
    bench.slot.retry()
    assert bench.view().keep_alive_seconds is None

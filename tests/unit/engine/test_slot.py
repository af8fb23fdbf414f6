"""What a slot guarantees to everybody who uses one encoder at once."""

from __future__ import annotations

import logging
import threading

import pytest
from engine_fakes import LIMIT, SIZE, SlotBench, failure, started

from engine.errors import Closed, LoadFailed, MoveFailed, Unavailable
from engine.events import StateChanged
from engine.slot import Terms
from engine.state import State

ON_DEVICE, IN_RAM, UNLOADED = State.ON_DEVICE, State.IN_RAM, State.UNLOADED


@pytest.fixture
def bench() -> SlotBench:
    return SlotBench()


# Up


def test_one_load_for_many_first_callers(bench: SlotBench) -> None:
    gate = bench.adapter.hold("load")
    users = [started(bench.use) for _ in range(16)]
    gate.reached()
    bench.waiting.expect(15)
    assert bench.state is State.LOADING
    gate.open()
    assert [failure(user) for user in users] == [None] * 16
    assert bench.adapter.moves == ["load"]
    assert bench.view().loads == 1


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
        assert bench.adapter.moves == ["load"]
    outcome = getattr(bench.slot, verb)()
    assert (outcome.result, outcome.freed_bytes) == ("done", SIZE)


def test_an_encoder_that_is_on_its_way_up_is_not_moved_down(bench: SlotBench) -> None:
    gate = bench.adapter.hold("load")
    user = started(bench.use)
    gate.reached()
    assert bench.slot.offload().result == "busy"
    gate.open()
    assert failure(user) is None
    assert bench.adapter.moves == ["load"]


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
    [("offload", "offload", ["load", "offload", "resume"]), ("unload", "unload", ["load", "unload", "load"])],
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
    assert bench.adapter.moves[-1] == "load"


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


def test_an_encoder_that_cannot_rest_in_ram_is_unloaded_instead(bench: SlotBench) -> None:
    bench.adapter.rests_in_ram = False
    bench.use()
    outcome = bench.slot.offload()
    assert (outcome.state, outcome.freed_bytes) == (UNLOADED, SIZE)
    assert bench.path == [State.LOADING, ON_DEVICE, State.STEPPING_DOWN, UNLOADED]


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
    assert getattr(bench.slot, verb)().result == "refused"
    assert bench.adapter.moves == ["load"]
    bench.slot.pin(False)
    assert getattr(bench.slot, verb)().result == "done"


def test_pinning_loads_nothing(bench: SlotBench) -> None:
    assert bench.slot.pin(True).state is UNLOADED
    assert bench.view().pinned
    assert bench.adapter.calls == []


def test_new_terms_come_into_force_at_once_and_leave_the_pin_alone_unless_told(bench: SlotBench) -> None:
    bench.slot.pin(True)
    bench.slot.configure(Terms(1.0, 2.0))
    view = bench.view()
    assert (view.idle_timeout_seconds, view.unload_timeout_seconds, view.pinned) == (1.0, 2.0, True)
    bench.slot.configure(Terms(1.0, 2.0), pinned=False)
    assert not bench.view().pinned


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


@pytest.mark.parametrize("call", ["probe", "load", "footprint", "offload", "resume", "unload"])
def test_nothing_slow_runs_under_a_lock(bench: SlotBench, call: str) -> None:
    seen: list[State] = []

    def look(current: str) -> None:
        if current == call:
            seen.append(started(bench.view).result(LIMIT).state)

    bench.adapter.during = look
    bench.use()
    bench.slot.offload()
    bench.use()
    bench.slot.unload()
    assert seen
    assert set(seen) <= {State.LOADING, State.STEPPING_DOWN}


def test_events_are_published_under_no_lock_and_in_order(bench: SlotBench) -> None:
    seen = []
    bench.slot._publish = lambda event: seen.append((event, started(bench.view).result(LIMIT)))
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

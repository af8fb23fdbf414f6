"""No slow call under a lock, every waiter woken, and views that cost and change nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from engine_fakes import LIMIT, SIZE, SlotBench, failure, started

from engine.devices.placement import Footprint
from engine.errors import Closed, LoadFailed, Unavailable
from engine.state import State

ON_DEVICE, IN_RAM, UNLOADED = State.ON_DEVICE, State.IN_RAM, State.UNLOADED


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

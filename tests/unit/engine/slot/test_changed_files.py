"""Weights files that change under a slot: noticed at the next use, read again once."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future

import pytest
from engine_fakes import LIMIT, Gate, SlotBench, failure, started
from slot_cases import errors_told

from engine.errors import Closed, LoadFailed, Unavailable
from engine.events import Event, StateChanged, TimerSet
from engine.state import State

ON_DEVICE, IN_RAM, UNLOADED = State.ON_DEVICE, State.IN_RAM, State.UNLOADED


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

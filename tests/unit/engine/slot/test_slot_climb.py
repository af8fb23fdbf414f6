"""How a slot goes up: one load for all who wait, fallbacks to another device, and loads that fail."""

from __future__ import annotations

import logging

import pytest
from engine_fakes import SlotBench, failure, started
from slot_cases import errors_told

from engine.errors import LoadFailed, Unavailable
from engine.events import StateChanged
from engine.state import State

ON_DEVICE, IN_RAM, UNLOADED = State.ON_DEVICE, State.IN_RAM, State.UNLOADED


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

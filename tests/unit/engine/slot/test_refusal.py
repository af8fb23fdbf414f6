"""An encoder that cannot work as things are: loaded once, not at each request, and again once something changes."""

from __future__ import annotations

import logging
import threading

import pytest
from engine_fakes import SlotBench, failure, started

from engine.errors import LoadFailed, Unavailable
from engine.state import State

ON_DEVICE, UNAVAILABLE = State.ON_DEVICE, State.UNAVAILABLE


def lacking(bench: SlotBench, times: int = 1) -> None:
    """Let the next loads end in an Unavailable."""
    bench.adapter.fail("load", *[Unavailable("einops is missing.", next_step="pip install", title="Odd")] * times)


def refused(bench: SlotBench) -> Unavailable:
    """The error of one use."""
    with pytest.raises(Unavailable, match="einops is missing") as caught:
        bench.use()
    return caught.value


def loads(bench: SlotBench) -> int:
    return bench.adapter.calls.count("load")


def test_five_requests_to_an_encoder_that_cannot_work_load_it_once_and_all_get_the_same_words(
    bench: SlotBench,
) -> None:
    lacking(bench)
    errors = [refused(bench) for _ in range(5)]
    assert {(error.title, error.message, error.next_step) for error in errors} == {
        ("Odd", "einops is missing.", "pip install")
    }
    assert loads(bench) == 1
    assert bench.path == [State.LOADING, UNAVAILABLE], "and nobody is told again"
    view = bench.view()
    assert view.error is not None
    assert (view.error.message, view.error.retry_at) == ("einops is missing.", None)


def test_requests_at_once_load_it_once(bench: SlotBench) -> None:
    gate = bench.adapter.hold("load")
    lacking(bench)
    users = [started(bench.use) for _ in range(6)]
    gate.reached()
    bench.waiting.expect(5)
    gate.open()
    assert all(isinstance(failure(user), Unavailable) for user in users)
    assert loads(bench) == 1


def test_one_who_came_before_the_load_ended_and_is_late_does_not_load_again(bench: SlotBench) -> None:
    known = bench.slot._mover.backoff.error
    lacking(bench)
    refused(bench)
    with pytest.raises(Unavailable, match="einops"):
        bench.slot._leases.take(known)
    assert loads(bench) == 1


def test_something_that_changed_lets_the_next_use_load_again(
    bench: SlotBench, caplog: pytest.LogCaptureFixture
) -> None:
    lacking(bench, 2)
    refused(bench)
    bench.adapter.repaired = "config.json changed"
    with caplog.at_level(logging.INFO):
        refused(bench)
    assert "minilm is tried again: config.json changed" in caplog.text
    refused(bench)
    assert loads(bench) == 2
    bench.adapter.repaired = "config.json changed"
    bench.use()
    assert (bench.state, bench.view().error, loads(bench)) == (ON_DEVICE, None, 3)


@pytest.mark.parametrize("verb", ["retry", "warm"])
def test_a_person_who_asks_for_it_gets_another_load(bench: SlotBench, verb: str) -> None:
    lacking(bench, 2)
    refused(bench)
    with pytest.raises(Unavailable):
        getattr(bench.slot, verb)()
    assert loads(bench) == 2
    refused(bench)
    assert loads(bench) == 2, "what that one ended in is kept too"
    getattr(bench.slot, verb)()
    assert (bench.state, loads(bench)) == (ON_DEVICE, 3)


def test_a_preload_does_not_ask_twice(bench: SlotBench) -> None:
    lacking(bench)
    for _ in range(2):
        with pytest.raises(Unavailable):
            bench.slot.preload()
    assert loads(bench) == 1


def test_after_a_load_that_went_well_nothing_is_looked_at(bench: SlotBench) -> None:
    lacking(bench)
    refused(bench)
    bench.slot.retry()
    bench.adapter.calls.clear()
    bench.slot.unload()
    bench.use()
    bench.use()
    assert "mended" not in bench.adapter.calls


def test_another_end_of_the_next_load_takes_the_refusal_away(bench: SlotBench) -> None:
    lacking(bench)
    bench.adapter.fail("load", LoadFailed("The disk is lost."))
    refused(bench)
    bench.adapter.repaired = "config.json changed"
    with pytest.raises(LoadFailed):
        bench.use()
    bench.clock.now += 1000.0
    bench.use()
    assert (bench.state, loads(bench)) == (ON_DEVICE, 3)


def test_a_thousand_requests_to_one_that_lacks_a_package_are_one_climb(bench: SlotBench) -> None:
    bench.adapter.fail("probe", *[Unavailable("torch is missing.")] * 1000)
    for _ in range(1000):
        with pytest.raises(Unavailable, match="torch is missing"):
            bench.use()
    assert bench.path == [State.LOADING, UNAVAILABLE], "and nobody is told again"
    bench.use()
    assert bench.state is ON_DEVICE


def test_another_thing_that_is_missing_is_shown(bench: SlotBench) -> None:
    bench.adapter.fail("probe", Unavailable("torch is missing."), *[Unavailable("numpy is missing.")] * 2)
    for package in ("torch", "numpy"):
        with pytest.raises(Unavailable, match=f"{package} is missing"):
            bench.use()
    error = bench.view().error
    assert error is not None
    assert error.message == "numpy is missing."


def test_a_probe_that_fails_after_it_is_kept_by_nobody(bench: SlotBench) -> None:
    lacking(bench)
    refused(bench)
    bench.adapter.repaired = "config.json changed"
    bench.adapter.fail("probe", Unavailable("The folder is gone."))
    with pytest.raises(Unavailable, match="folder is gone"):
        bench.use()
    bench.use()
    assert bench.state is ON_DEVICE


def test_the_look_for_changes_runs_under_no_lock(bench: SlotBench) -> None:
    lacking(bench)
    refused(bench)
    gate = bench.adapter.hold("mended")
    user = started(bench.use)
    gate.reached()
    # On another thread, because the condition's lock may be taken twice by one.
    seen = threading.Event()
    started(lambda: (bench.view(), bench.slot.pin(True), seen.set()))
    assert seen.wait(5.0)
    gate.open()
    assert isinstance(failure(user), Unavailable)


def test_a_folder_that_changed_after_a_failed_load_is_read_at_once_whatever_its_delay(
    bench: SlotBench, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):  # as a file does that is still being copied
        bench.adapter.fail("load", LoadFailed("model.safetensors is cut short."))
        with pytest.raises(LoadFailed, match="cut short"):
            bench.use()
        with pytest.raises(LoadFailed, match="cut short"):
            bench.use()
        bench.adapter.repaired = "model.safetensors changed"
    assert loads(bench) == 3, "without a change the delay holds"
    with caplog.at_level(logging.INFO):
        bench.use()
    assert (bench.state, loads(bench)) == (ON_DEVICE, 4)
    assert "minilm is tried again: model.safetensors changed" in caplog.text

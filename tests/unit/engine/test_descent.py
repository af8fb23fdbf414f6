"""Taking weights down: where they end, what that gave back, and that nothing is called done which is not."""

from __future__ import annotations

import logging

import pytest
from engine_fakes import SIZE, FakeAdapter

from engine.descent import Descent, descend, drop
from engine.errors import CannotRest, MoveFailed
from engine.state import State
from engine.weights.footprint import Footprint

IN_RAM, UNLOADED = State.IN_RAM, State.UNLOADED
DEVICES = ["gpu", "cpu"]


def up(device: str) -> FakeAdapter:
    """An adapter whose weights are on their device, with no call on record."""
    adapter = FakeAdapter(device=device)
    adapter.load()
    adapter.resume()
    adapter.calls.clear()
    return adapter


def step_down(adapter: FakeAdapter, target: State = IN_RAM) -> Descent:
    return descend("minilm", adapter, target, device=adapter.device)


# To RAM


def test_on_a_gpu_what_leaves_the_device_is_freed_although_it_stays_in_ram() -> None:
    descent = step_down(up("gpu"))
    assert descent == Descent(IN_RAM, Footprint(0, SIZE, SIZE), SIZE)
    assert (descent.note, descent.error, descent.done) == (None, None, True)


def test_on_a_cpu_only_what_leaves_ram_is_freed() -> None:
    assert step_down(up("cpu")) == Descent(IN_RAM, Footprint(0, 0, SIZE), SIZE)


@pytest.mark.parametrize("device", DEVICES)
def test_a_step_to_ram_calls_nothing_but_the_offload_and_two_looks(device: str) -> None:
    adapter = up(device)
    step_down(adapter)
    assert adapter.calls == ["footprint", "offload", "footprint"]


@pytest.mark.parametrize("device", DEVICES)
def test_a_system_that_keeps_up_to_a_twentieth_has_given_the_memory_back(device: str) -> None:
    adapter = up(device)
    adapter.kept["offload"] = 5
    descent = step_down(adapter)
    assert (descent.rung, descent.freed, descent.note, descent.done) == (IN_RAM, 95, None, True)


@pytest.mark.parametrize("device", DEVICES)
def test_a_system_that_gives_back_too_little_makes_it_unload_instead_and_say_so(device: str) -> None:
    adapter = up(device)
    adapter.kept["offload"] = 6
    descent = step_down(adapter)
    assert adapter.moves == ["offload", "unload"]
    assert (descent.rung, descent.after.held, descent.freed) == (UNLOADED, 0, SIZE)
    assert descent.note == "The system took back only 0.0 MiB of 0.0 MiB, so it was unloaded."
    assert (descent.error, descent.done) == (None, True)


def test_what_was_given_back_is_told_in_mib() -> None:
    adapter = up("cpu")
    sizes = [Footprint(300 << 20, 0, 300 << 20), Footprint(0, 100 << 20, 300 << 20), Footprint(0, 0, 0)]
    adapter.footprint = lambda: sizes.pop(0)  # type: ignore[method-assign]
    adapter.promised = 300 << 20
    assert step_down(adapter).note == "The system took back only 200.0 MiB of 300.0 MiB, so it was unloaded."


@pytest.mark.parametrize(("promised", "rung"), [(70, IN_RAM), (73, IN_RAM), (74, UNLOADED)])
def test_what_must_come_free_is_what_the_adapter_promised_and_not_all_that_was_resident(
    promised: int, rung: State
) -> None:
    adapter = up("cpu")
    adapter.promised = promised
    adapter.kept["offload"] = 30
    assert step_down(adapter).rung is rung


def test_nothing_resident_has_nothing_to_give_back_and_rests_all_the_same() -> None:
    adapter = up("cpu")
    adapter.footprint = lambda: Footprint(0, 0, SIZE)  # type: ignore[method-assign]
    adapter.promised = 0
    assert step_down(adapter) == Descent(IN_RAM, Footprint(0, 0, SIZE), 0)
    assert adapter.moves == ["offload"]


@pytest.mark.parametrize("device", DEVICES)
def test_weights_that_would_not_survive_in_ram_are_unloaded_which_is_no_failure(device: str) -> None:
    adapter = up(device)
    adapter.fail("offload", CannotRest("It writes into its own weights."))
    descent = step_down(adapter)
    assert descent == Descent(UNLOADED, Footprint(0, 0, 0), SIZE, "It writes into its own weights.")
    assert adapter.moves == ["offload", "unload"]


@pytest.mark.parametrize("device", DEVICES)
def test_weights_that_are_known_not_to_survive_in_ram_are_never_moved_there(device: str) -> None:
    adapter = up(device)
    adapter.cannot_rest = "Its weights are in plain memory."
    descent = step_down(adapter)
    assert descent == Descent(UNLOADED, Footprint(0, 0, 0), SIZE, "Its weights are in plain memory.")
    assert adapter.moves == ["unload"]


@pytest.mark.parametrize("call", ["offload", "footprint"])
def test_a_move_to_ram_that_fails_unloads_and_tells_why(call: str, caplog: pytest.LogCaptureFixture) -> None:
    adapter = up("gpu")

    def break_after_the_first_look(current: str) -> None:
        if current == call and len(adapter.calls) > 1 and "unload" not in adapter.calls:
            raise RuntimeError("out of memory")

    adapter.during = break_after_the_first_look
    with caplog.at_level(logging.ERROR):
        descent = step_down(adapter)
    assert (descent.rung, descent.freed, descent.done, adapter.weights) == (UNLOADED, SIZE, True, set())
    assert descent.note == "It could not be moved to RAM, so it was unloaded: out of memory"
    assert isinstance(descent.error, MoveFailed)
    assert descent.error.message == f"minilm: {descent.note}"
    assert "Traceback" in caplog.text


# All the way


@pytest.mark.parametrize("device", DEVICES)
def test_unloading_frees_what_was_held_and_asks_for_no_rest(device: str) -> None:
    adapter = up(device)
    assert step_down(adapter, UNLOADED) == Descent(UNLOADED, Footprint(0, 0, 0), SIZE)
    assert adapter.moves == ["unload"]


@pytest.mark.parametrize(("device", "freed"), [("gpu", SIZE), ("cpu", 0)])
def test_unloading_from_ram_frees_what_was_resident_there(device: str, freed: int) -> None:
    adapter = up(device)
    adapter.offload()
    assert step_down(adapter, UNLOADED) == Descent(UNLOADED, Footprint(0, 0, 0), freed)


def test_an_unload_that_was_asked_for_gives_no_reason_for_not_resting() -> None:
    adapter = up("cpu")
    adapter.cannot_rest = "Its weights are in plain memory."
    assert step_down(adapter, UNLOADED).note is None


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("target", [IN_RAM, UNLOADED])
def test_bytes_that_stay_after_an_unload_are_shown_and_never_called_done(
    device: str, target: State, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = up(device)
    adapter.cannot_rest = "Its weights are in plain memory."
    adapter.kept["unload"] = 6
    with caplog.at_level(logging.WARNING):
        descent = step_down(adapter, target)
    assert (descent.rung, descent.after, descent.freed) == (UNLOADED, Footprint(0, 6, 0), SIZE - 6)
    assert descent.done is False
    assert descent.note is not None
    assert descent.note.endswith("of its weights were not given back, because something still refers to them.")
    assert isinstance(descent.error, MoveFailed)
    assert (descent.error.title, descent.error.message) == ("Memory not given back", f"minilm: {descent.note}")
    assert descent.note in caplog.text


@pytest.mark.parametrize("device", DEVICES)
def test_up_to_a_twentieth_may_stay_after_an_unload(device: str) -> None:
    adapter = up(device)
    adapter.kept["unload"] = 5
    descent = step_down(adapter, UNLOADED)
    assert (descent.done, descent.freed, descent.note, descent.error) == (True, 95, None, None)


def test_an_unload_that_raises_is_logged_and_judged_by_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    adapter = up("gpu")
    adapter.fail("unload", RuntimeError("no"))
    with caplog.at_level(logging.ERROR):
        descent = step_down(adapter, UNLOADED)
    assert (descent.rung, descent.freed, descent.done) == (UNLOADED, 0, False)
    assert descent.after.held == SIZE
    assert "minilm did not unload cleanly" in caplog.text


def test_dropping_lets_an_interruption_through() -> None:
    adapter = up("gpu")
    adapter.fail("unload", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        drop("minilm", adapter)

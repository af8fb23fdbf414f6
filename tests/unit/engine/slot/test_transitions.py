"""Taking weights down: where they end, what that gave back, and that nothing is called done which is not."""

from __future__ import annotations

import logging

import pytest
from engine_fakes import SIZE, FakeAdapter

from engine.devices.placement import UNKNOWN, Footprint, Placement
from engine.errors import CannotRest, MoveFailed
from engine.slot.transitions import SteppedDown, step_down, unload
from engine.state import State

IN_RAM, UNLOADED = State.IN_RAM, State.UNLOADED
DEVICES = ["gpu", "cpu"]


def up(device: str) -> FakeAdapter:
    """An adapter whose weights are on their device, with no call on record."""
    adapter = FakeAdapter(device=device)
    adapter.load()
    adapter.resume(Placement(device))
    adapter.calls.clear()
    return adapter


def down(adapter: FakeAdapter, target: State = IN_RAM) -> SteppedDown:
    return step_down("minilm", adapter, target, device=adapter.device)


# To RAM


def test_on_a_gpu_what_leaves_the_device_is_freed_although_it_stays_in_ram() -> None:
    descent = down(up("gpu"))
    assert descent == SteppedDown(IN_RAM, Footprint(0, SIZE, SIZE), SIZE)
    assert (descent.note, descent.error, descent.done) == (None, None, True)


def test_on_a_cpu_only_what_leaves_ram_is_freed() -> None:
    assert down(up("cpu")) == SteppedDown(IN_RAM, Footprint(0, 0, SIZE), SIZE)


@pytest.mark.parametrize("device", DEVICES)
def test_a_step_to_ram_calls_nothing_but_the_offload_and_a_look_before_and_after(device: str) -> None:
    adapter = up(device)
    down(adapter)
    assert adapter.calls[-2:] == ["offload", "footprint"]
    assert adapter.calls[:-2] in ([], ["footprint"])


@pytest.mark.parametrize("device", DEVICES)
def test_a_system_that_keeps_up_to_a_twentieth_has_given_the_memory_back(device: str) -> None:
    adapter = up(device)
    adapter.kept["offload"] = 5
    descent = down(adapter)
    assert (descent.rung, descent.freed, descent.note, descent.done) == (IN_RAM, 95, None, True)


@pytest.mark.parametrize("device", DEVICES)
def test_a_system_that_gives_back_too_little_makes_it_unload_instead_and_say_so(device: str) -> None:
    adapter = up(device)
    adapter.kept["offload"] = 6
    descent = down(adapter)
    assert adapter.moves == ["offload", "unload"]
    assert (descent.rung, descent.after.held, descent.freed) == (UNLOADED, 0, SIZE)
    assert descent.note == "The system took back only 0.0 MiB of 0.0 MiB, so it was unloaded."
    assert (descent.error, descent.done) == (None, True)


def between(adapter: FakeAdapter, before: Footprint, after: Footprint) -> FakeAdapter:
    """`adapter`, with these figures right before it offloads and after that; none once it is unloaded."""
    figures = [before]

    def offload() -> Footprint:
        figures.append(after)
        return before

    adapter.offload = offload  # type: ignore[method-assign]
    adapter.footprint = lambda: figures[-1] if adapter.weights else Footprint(0, 0, 0)  # type: ignore[method-assign]
    return adapter


def test_what_was_given_back_is_told_in_mib() -> None:
    large, part = Footprint(300 << 20, 0, 300 << 20), Footprint(0, 100 << 20, 300 << 20)
    descent = down(between(up("cpu"), large, part))
    assert descent.note == "The system took back only 200.0 MiB of 300.0 MiB, so it was unloaded."
    assert (descent.rung, descent.freed, descent.done) == (UNLOADED, 300 << 20, True)


@pytest.mark.parametrize("device", DEVICES)
def test_what_must_come_free_is_what_was_on_the_device_and_not_what_is_in_ram_on_every_rung(device: str) -> None:
    adapter = up(device)
    adapter.beside = 1000
    descent = down(adapter)
    assert (descent.rung, descent.freed, descent.note, descent.done) == (IN_RAM, SIZE, None, True)


@pytest.mark.parametrize(("on_device", "rung"), [(70, IN_RAM), (73, IN_RAM), (74, UNLOADED)])
def test_a_twentieth_is_counted_of_what_was_resident_on_the_device_right_before(on_device: int, rung: State) -> None:
    before, after = Footprint(on_device, 30, SIZE), Footprint(0, on_device - 40, SIZE)
    assert before.held is not None
    freed = before.held - (on_device - 40)
    assert freed == 70
    assert down(between(up("cpu"), before, after)).rung is rung


def test_nothing_resident_has_nothing_to_give_back_and_rests_all_the_same() -> None:
    adapter = between(up("cpu"), Footprint(0, 0, SIZE), Footprint(0, 0, SIZE))
    assert down(adapter) == SteppedDown(IN_RAM, Footprint(0, 0, SIZE), 0)


# Where the system does not say what is resident


@pytest.mark.parametrize(("device", "freed"), [("gpu", SIZE), ("cpu", None)])
def test_a_step_to_ram_of_what_cannot_be_measured_there_rests_and_claims_no_bytes(
    device: str, freed: int | None
) -> None:
    adapter = up(device)
    adapter.blind, adapter.beside = True, 7
    assert down(adapter) == SteppedDown(IN_RAM, Footprint(0, None, SIZE), freed)
    assert adapter.moves == ["offload"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Footprint(None, 0, SIZE), Footprint(0, 0, SIZE)),
        (Footprint(SIZE, None, SIZE), Footprint(0, 0, SIZE)),
        (Footprint(SIZE, 0, SIZE), Footprint(0, None, SIZE)),
        (Footprint(SIZE, 0, SIZE), Footprint(None, None, SIZE)),
        (UNKNOWN, UNKNOWN),
    ],
)
def test_any_unknown_part_makes_what_came_free_unknown_and_no_failure(before: Footprint, after: Footprint) -> None:
    descent = down(between(up("cpu"), before, after))
    assert descent == SteppedDown(IN_RAM, after, None)
    assert (descent.note, descent.error, descent.done) == (None, None, True)


def test_what_is_left_on_a_gpu_is_judged_although_nothing_is_known_of_the_ram() -> None:
    before, after = Footprint(SIZE, None, SIZE), Footprint(SIZE // 2, None, SIZE)
    descent = down(between(up("gpu"), before, after))
    assert (descent.rung, descent.freed, descent.done) == (UNLOADED, None, True)
    assert descent.note == "The system took back only 0.0 MiB of 0.0 MiB, so it was unloaded."


@pytest.mark.parametrize("device", DEVICES)
def test_an_unload_of_what_cannot_be_measured_is_done_and_claims_no_bytes(device: str) -> None:
    adapter = up(device)
    adapter.blind = True
    assert down(adapter, UNLOADED) == SteppedDown(UNLOADED, Footprint(0, 0, 0), None)


def test_part_is_all_that_is_said_of_what_stays_where_nothing_can_be_measured() -> None:
    adapter = up("cpu")
    adapter.clinging = True
    adapter.footprint = lambda: UNKNOWN  # type: ignore[method-assign]
    descent = down(adapter, UNLOADED)
    assert (descent.done, descent.freed, descent.after) == (False, None, UNKNOWN)
    assert descent.note == "Part of its weights was not given back, because something still refers to them."


# Where it cannot rest


@pytest.mark.parametrize("device", DEVICES)
def test_weights_that_would_not_survive_in_ram_are_unloaded_which_is_no_failure(device: str) -> None:
    adapter = up(device)
    adapter.fail("offload", CannotRest("It writes into its own weights."))
    descent = down(adapter)
    assert descent == SteppedDown(UNLOADED, Footprint(0, 0, 0), SIZE, "It writes into its own weights.")
    assert adapter.moves == ["offload", "unload"]


@pytest.mark.parametrize("device", DEVICES)
def test_weights_that_are_known_not_to_survive_in_ram_are_never_moved_there(device: str) -> None:
    adapter = up(device)
    adapter.cannot_rest = "Its weights are in plain memory."
    descent = down(adapter)
    assert descent == SteppedDown(UNLOADED, Footprint(0, 0, 0), SIZE, "Its weights are in plain memory.")
    assert adapter.moves == ["unload"]


@pytest.mark.parametrize("call", ["offload", "footprint"])
def test_a_move_to_ram_that_fails_unloads_and_tells_why(call: str, caplog: pytest.LogCaptureFixture) -> None:
    adapter = up("gpu")

    def break_once_it_moves(current: str) -> None:
        if current == call and "offload" in adapter.calls and "unload" not in adapter.calls:
            raise RuntimeError("out of memory")

    adapter.during = break_once_it_moves
    with caplog.at_level(logging.ERROR):
        descent = down(adapter)
    assert (descent.rung, descent.freed, descent.done, adapter.weights) == (UNLOADED, SIZE, True, set())
    assert descent.note == "It could not be moved to RAM, so it was unloaded: out of memory"
    assert isinstance(descent.error, MoveFailed)
    assert descent.error.message == f"minilm: {descent.note}"
    assert "Traceback" in caplog.text


# All the way


@pytest.mark.parametrize("device", DEVICES)
def test_unloading_frees_what_was_held_and_asks_for_no_rest(device: str) -> None:
    adapter = up(device)
    assert down(adapter, UNLOADED) == SteppedDown(UNLOADED, Footprint(0, 0, 0), SIZE)
    assert adapter.moves == ["unload"]


@pytest.mark.parametrize(("device", "freed"), [("gpu", SIZE), ("cpu", 0)])
def test_unloading_from_ram_frees_what_was_resident_there(device: str, freed: int) -> None:
    adapter = up(device)
    adapter.offload()
    assert down(adapter, UNLOADED) == SteppedDown(UNLOADED, Footprint(0, 0, 0), freed)


def test_an_unload_that_was_asked_for_gives_no_reason_for_not_resting() -> None:
    adapter = up("cpu")
    adapter.cannot_rest = "Its weights are in plain memory."
    assert down(adapter, UNLOADED).note is None


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("target", [IN_RAM, UNLOADED])
def test_bytes_that_stay_after_an_unload_are_shown_and_never_called_done(
    device: str, target: State, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = up(device)
    adapter.cannot_rest = "Its weights are in plain memory."
    adapter.kept["unload"] = 5
    with caplog.at_level(logging.WARNING):
        descent = down(adapter, target)
    assert (descent.rung, descent.after, descent.freed) == (UNLOADED, Footprint(0, 5, 0), SIZE - 5)
    assert_not_gone(descent, caplog)


def assert_not_gone(descent: SteppedDown, caplog: pytest.LogCaptureFixture) -> None:
    """It is called no success anywhere, and the reason is given everywhere."""
    assert descent.done is False
    assert descent.note is not None
    assert descent.note.endswith("of its weights was not given back, because something still refers to them.")
    assert isinstance(descent.error, MoveFailed)
    assert (descent.error.title, descent.error.message) == ("Memory not given back", f"minilm: {descent.note}")
    assert descent.note in caplog.text


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rung", [IN_RAM, State.ON_DEVICE])
def test_an_unload_after_which_something_refers_to_the_weights_is_not_done_even_where_nothing_is_resident(
    device: str, rung: State, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = up(device)
    if rung is IN_RAM:
        adapter.offload()
    adapter.clinging = True
    with caplog.at_level(logging.WARNING):
        descent = down(adapter, UNLOADED)
    assert (descent.rung, descent.after) == (UNLOADED, Footprint(0, 0, 0))
    assert descent.freed == (0 if (device, rung) == ("cpu", IN_RAM) else SIZE)
    assert_not_gone(descent, caplog)
    assert str(descent.note).startswith("Part of its weights"), "not: 0.0 MiB"


def test_an_unload_that_raises_is_logged_and_judged_by_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    adapter = up("gpu")
    adapter.fail("unload", RuntimeError("no"))
    with caplog.at_level(logging.ERROR):
        descent = down(adapter, UNLOADED)
    assert (descent.rung, descent.freed, descent.done) == (UNLOADED, 0, False)
    assert descent.after.held == SIZE
    assert "minilm did not unload cleanly" in caplog.text


def test_dropping_lets_an_interruption_through() -> None:
    adapter = up("gpu")
    adapter.fail("unload", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        unload("minilm", adapter)

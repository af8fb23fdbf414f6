"""What stands between a failed encoder and its next try."""

from __future__ import annotations

import pytest

from engine.errors import EncoderError, LoadFailed, Unavailable
from engine.slot.backoff import Backoff
from engine.state import ErrorView, State

FAILED, UNAVAILABLE = State.FAILED, State.UNAVAILABLE


@pytest.fixture
def backoff() -> Backoff:
    return Backoff()


def fail(backoff: Backoff, now: float) -> float | None:
    """Record a failed load and return the delay that its caller is told."""
    error = LoadFailed("No GPU.", title="No CUDA", next_step="Set device.")
    backoff.record(error, now)
    return error.retry_in_seconds


@pytest.mark.parametrize("waited", [False, True])
@pytest.mark.parametrize("state", State)
def test_without_a_failure_nobody_is_refused(backoff: Backoff, state: State, waited: bool) -> None:
    backoff.raise_if_waiting(state, 10.0, waited=waited)
    assert backoff.error is None


def test_a_failure_is_kept_in_its_own_words_with_the_time_of_the_next_try(backoff: Backoff) -> None:
    assert fail(backoff, 10.0) == 5.0
    assert backoff.error == ErrorView("No CUDA", "No GPU.", "Set device.", 15.0)


def test_the_delay_doubles_up_to_five_minutes_and_stays_there(backoff: Backoff) -> None:
    assert [fail(backoff, 10.0) for _ in range(9)] == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_the_delay_is_still_a_number_after_very_many_failures(backoff: Backoff) -> None:
    assert {fail(backoff, 10.0) for _ in range(5000)} == {5, 10, 20, 40, 80, 160, 300}


def test_an_error_that_is_no_failed_load_has_its_delay_too(backoff: Backoff) -> None:
    backoff.record(EncoderError("Odd."), 10.0)
    assert backoff.error == ErrorView("Encoder failed", "Odd.", None, 15.0)


def test_a_use_within_the_delay_is_refused_with_the_kept_words_and_what_is_left_of_it(backoff: Backoff) -> None:
    fail(backoff, 10.0)
    with pytest.raises(LoadFailed, match="No GPU") as refused:
        backoff.raise_if_waiting(FAILED, 12.0, waited=False)
    error = refused.value
    assert (error.title, error.next_step, error.retry_in_seconds) == ("No CUDA", "Set device.", 3.0)


def test_a_use_after_the_delay_may_try_again(backoff: Backoff) -> None:
    fail(backoff, 10.0)
    backoff.raise_if_waiting(FAILED, 15.0, waited=False)


def test_those_who_waited_for_the_failed_climb_are_told_even_when_the_delay_is_over(backoff: Backoff) -> None:
    fail(backoff, 10.0)
    with pytest.raises(LoadFailed) as refused:
        backoff.raise_if_waiting(FAILED, 99.0, waited=True)
    assert refused.value.retry_in_seconds == 0.0


@pytest.mark.parametrize("state", [State.UNLOADED, State.IN_RAM, State.ON_DEVICE])
def test_an_error_from_before_refuses_nobody_on_another_rung(backoff: Backoff, state: State) -> None:
    fail(backoff, 10.0)
    backoff.raise_if_waiting(state, 11.0, waited=True)


def test_what_cannot_be_helped_has_no_delay_and_is_looked_at_again_by_the_next_use(backoff: Backoff) -> None:
    backoff.record(Unavailable("torch is missing.", next_step="pip install torch"), 10.0)
    assert backoff.error == ErrorView("Not available", "torch is missing.", "pip install torch", None)
    backoff.raise_if_waiting(UNAVAILABLE, 10.0, waited=False)
    with pytest.raises(Unavailable, match="torch is missing") as refused:
        backoff.raise_if_waiting(UNAVAILABLE, 10.0, waited=True)
    assert (refused.value.title, refused.value.next_step) == ("Not available", "pip install torch")


def test_what_cannot_be_helped_does_not_lengthen_the_delay(backoff: Backoff) -> None:
    fail(backoff, 10.0)
    backoff.record(Unavailable("torch is missing."), 20.0)
    assert fail(backoff, 30.0) == 10.0


def test_a_climb_that_went_well_takes_error_and_delay_away(backoff: Backoff) -> None:
    fail(backoff, 10.0)
    fail(backoff, 20.0)
    backoff.reset()
    assert backoff.error is None
    assert fail(backoff, 30.0) == 5.0


def test_an_end_that_was_nobodys_fault_takes_the_error_away_but_not_the_count(backoff: Backoff) -> None:
    fail(backoff, 10.0)
    backoff.forget()
    assert backoff.error is None
    assert fail(backoff, 30.0) == 10.0

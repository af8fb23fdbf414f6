"""The events that become balloons."""

from __future__ import annotations

import pytest
from tray_fakes import an_outcome

from engine import LoadFailed, SettingsApplied, SettingsError, SettingsRefused, State, StateChanged, Unavailable
from engine.events import TimerSet
from tray.notices import Notice, notice_for, of_outcomes


def test_a_failed_load_is_told_with_what_to_do() -> None:
    error = LoadFailed("The weights are cut short.", next_step="Install again.")
    assert notice_for(StateChanged("minilm", State.LOADING, State.FAILED, error=error)) == Notice(
        "minilm: Load failed", "The weights are cut short. Install again."
    )


def test_an_encoder_that_cannot_be_used_is_told() -> None:
    error = Unavailable("The package torch is missing.")
    notice = notice_for(StateChanged("minilm", State.UNLOADED, State.UNAVAILABLE, error=error))
    assert notice == Notice("minilm: Not available", "The package torch is missing.")


@pytest.mark.parametrize("state", [State.FAILED, State.UNAVAILABLE])
def test_a_failure_without_its_error_still_names_the_encoder(state: State) -> None:
    notice = notice_for(StateChanged("minilm", State.LOADING, state))
    assert notice is not None
    assert "minilm" in notice.title
    assert notice.message


def test_refused_settings_are_told() -> None:
    event = SettingsRefused(SettingsError("line 3: hardware.device: must be one of: auto, cpu"))
    assert notice_for(event) == Notice("Settings not accepted", "line 3: hardware.device: must be one of: auto, cpu")


@pytest.mark.parametrize(
    "event",
    [
        SettingsApplied(),
        TimerSet("minilm"),
        *(
            StateChanged("minilm", State.UNLOADED, state)
            for state in State
            if state not in (State.FAILED, State.UNAVAILABLE)
        ),
    ],
)
def test_the_ordinary_life_of_an_encoder_makes_no_noise(event: SettingsApplied | TimerSet | StateChanged) -> None:
    assert notice_for(event) is None


@pytest.mark.parametrize("state", [State.ON_DEVICE, State.IN_RAM])
def test_an_encoder_that_came_up_elsewhere_than_the_settings_want_is_told_with_the_reason(state: State) -> None:
    reason = "It computes on the CPU, because torch 2 finds no cuda here."
    assert notice_for(StateChanged("minilm", State.LOADING, state, reason)) == Notice(
        "minilm is not where the settings want it", reason
    )


@pytest.mark.parametrize(
    "event",
    [
        StateChanged("minilm", State.LOADING, State.ON_DEVICE),
        StateChanged("minilm", State.ON_DEVICE, State.STEPPING_DOWN, "idle for 30 s"),
        StateChanged("minilm", State.STEPPING_DOWN, State.IN_RAM, "idle for 30 s"),
        StateChanged("minilm", State.STEPPING_DOWN, State.UNLOADED, "model.safetensors was replaced"),
    ],
)
def test_a_reason_for_any_other_move_makes_no_noise(event: StateChanged) -> None:
    assert notice_for(event) is None


RAM = State.IN_RAM


def test_a_click_that_did_what_it_should_makes_no_noise() -> None:
    assert of_outcomes([], RAM) is None
    assert of_outcomes([an_outcome(), an_outcome("other", state=State.UNLOADED)], RAM) is None


def test_an_encoder_that_stays_is_told_with_the_engines_reason_or_our_own() -> None:
    busy = an_outcome("minilm", "busy", "2 requests run.")
    assert of_outcomes([busy], RAM) == Notice("Left in place", "minilm: 2 requests run.")
    assert of_outcomes([an_outcome("minilm", "refused")], RAM) == Notice("Left in place", "minilm: pinned.")


def test_memory_that_was_not_given_back_is_no_success() -> None:
    kept = an_outcome("minilm", "refused", "Part of its weights was not given back.", State.UNLOADED)
    assert of_outcomes([kept], State.UNLOADED) == Notice(
        "Memory not given back", "minilm: Part of its weights was not given back."
    )


def test_an_encoder_that_went_further_than_asked_is_told_why() -> None:
    further = an_outcome("minilm", "done", "It writes into its weights.", State.UNLOADED)
    assert of_outcomes([further], RAM) == Notice("Unloaded instead", "minilm: It writes into its weights.")
    assert of_outcomes([further], State.UNLOADED) is None


def test_different_ends_share_one_notice() -> None:
    notice = of_outcomes(
        [an_outcome("a", "busy"), an_outcome("b"), an_outcome("c", "done", "why", State.UNLOADED)], RAM
    )
    assert notice == Notice("Not all as you asked", "a: in use or on its way.\nc: why.")

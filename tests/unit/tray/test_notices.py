"""Which events become balloons."""

from __future__ import annotations

import pytest

from engine.errors import LoadFailed, SettingsError, Unavailable
from engine.events import SettingsApplied, SettingsRefused, StateChanged
from engine.state import State
from tray.notices import Notice, notice_for


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
        *(
            StateChanged("minilm", State.UNLOADED, state)
            for state in State
            if state not in (State.FAILED, State.UNAVAILABLE)
        ),
    ],
)
def test_the_ordinary_life_of_an_encoder_makes_no_noise(event: SettingsApplied | StateChanged) -> None:
    assert notice_for(event) is None

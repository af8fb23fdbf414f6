"""What a view says in words, and when it could step down."""

from __future__ import annotations

from typing import Any

import pytest

from engine.state import RESTING, EncoderView, State


def view(state: State, **facts: Any) -> EncoderView:
    return EncoderView(
        **{
            "name": "minilm",
            "kind": "dense",
            "model": "m",
            "aliases": (),
            "state": state,
            "idle_timeout_seconds": 30.0,
            "unload_timeout_seconds": 900.0,
            **facts,
        }
    )


def test_states_are_spelled_as_the_endpoint_spells_them() -> None:
    assert {str(state) for state in State} == {
        "on_device", "stepping_down", "in_ram", "unloaded", "loading", "failed", "unavailable",
    }  # fmt: skip


def test_all_but_the_moving_states_rest() -> None:
    assert set(State) - RESTING == {State.LOADING, State.STEPPING_DOWN}


@pytest.mark.parametrize("state", State)
def test_every_state_has_words_for_a_person(state: State) -> None:
    assert view(state).status
    assert view(state).awake is (state is State.ON_DEVICE)


def test_an_encoder_in_use_runs_and_one_without_use_idles() -> None:
    assert view(State.ON_DEVICE, in_flight=1).status == "running"
    assert view(State.ON_DEVICE).status == "idle"


@pytest.mark.parametrize(
    ("seen", "deadline"),
    [
        (view(State.ON_DEVICE, last_used=90.0), 120.0),
        (view(State.ON_DEVICE, last_used=90.0, in_flight=1), 130.0),
        (view(State.ON_DEVICE), 130.0),
        (view(State.ON_DEVICE, last_used=90.0, idle_timeout_seconds=0.0), None),
        (view(State.ON_DEVICE, last_used=90.0, pinned=True), None),
        (view(State.ON_DEVICE, last_used=90.0, keep_alive_seconds=60.0), 150.0),
        (view(State.ON_DEVICE, last_used=90.0, keep_alive_seconds=60.0, idle_timeout_seconds=0.0), 150.0),
        (view(State.ON_DEVICE, last_used=90.0, keep_alive_seconds=60.0, in_flight=1), 160.0),
        (view(State.ON_DEVICE, last_used=90.0, keep_alive_seconds=60.0, pinned=True), None),
        (view(State.ON_DEVICE, keep_alive_seconds=60.0), 160.0),
        (view(State.ON_DEVICE, last_used=90.0, keep_alive_seconds=0.0), 90.0),
        (view(State.ON_DEVICE, last_used=90.0, keep_alive_seconds=0.0, idle_timeout_seconds=0.0), 90.0),
        (view(State.ON_DEVICE, last_used=90.0, keep_alive_seconds=0.0, in_flight=1), None),
        (view(State.ON_DEVICE, last_used=90.0, keep_alive_seconds=0.0, pinned=True), None),
        (view(State.ON_DEVICE, last_used=90.0, keep_alive_seconds=-1.0), None),
        (view(State.ON_DEVICE, last_used=90.0, keep_alive_seconds=-1.0, in_flight=1), None),
        (view(State.IN_RAM, last_used=10.0, stepped_down_at=40.0, keep_alive_seconds=-1.0), 940.0),
        (view(State.IN_RAM, last_used=10.0, stepped_down_at=40.0), 940.0),
        (view(State.IN_RAM, last_used=10.0, stepped_down_at=40.0, unload_timeout_seconds=0.0), None),
        (view(State.IN_RAM, last_used=10.0, stepped_down_at=40.0, pinned=True), None),
        *[
            (view(state, last_used=1.0, stepped_down_at=1.0, keep_alive_seconds=0.0), None)
            for state in (State.UNLOADED, State.LOADING, State.STEPPING_DOWN, State.FAILED, State.UNAVAILABLE)
        ],
    ],
)
def test_the_next_deadline_counts_from_the_last_use_or_from_the_stepping_down(
    seen: EncoderView, deadline: float | None
) -> None:
    assert seen.next_deadline(100.0) == deadline

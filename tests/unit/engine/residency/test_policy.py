"""What steps down when, decided from views alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_state import view

from engine.residency import policy
from engine.residency.policy import Decision, Shortage, Step, relieve
from engine.state import SlotView, State

ON_DEVICE, IN_RAM = State.ON_DEVICE, State.IN_RAM
NO_TIMEOUT = {"idle_timeout_seconds": 0.0}


@pytest.mark.parametrize(
    ("facts", "now", "step"),
    [
        ({"state": ON_DEVICE, "last_used": 100.0}, 129.9, None),
        ({"state": ON_DEVICE, "last_used": 100.0}, 130.0, Step.OFFLOAD),
        ({"state": ON_DEVICE, "last_used": 100.0}, 9999.0, Step.OFFLOAD),
        ({"state": ON_DEVICE, "last_used": 100.0, "in_flight": 1}, 9999.0, None),
        ({"state": ON_DEVICE, "last_used": 100.0, "queued": 1}, 9999.0, None),
        ({"state": ON_DEVICE, "last_used": 100.0, "pinned": True}, 9999.0, None),
        ({"state": ON_DEVICE, "last_used": 100.0, "idle_timeout_seconds": 0.0}, 9999.0, None),
        ({"state": ON_DEVICE, "last_used": None}, 9999.0, None),
        # What a request asked for stands over the idle timeout, longer or shorter, until it steps down.
        ({"state": ON_DEVICE, "last_used": 100.0, "keep_alive_seconds": 5.0}, 104.9, None),
        ({"state": ON_DEVICE, "last_used": 100.0, "keep_alive_seconds": 5.0}, 105.0, Step.OFFLOAD),
        ({"state": ON_DEVICE, "last_used": 100.0, "keep_alive_seconds": 60.0}, 159.9, None),
        ({"state": ON_DEVICE, "last_used": 100.0, "keep_alive_seconds": 60.0}, 160.0, Step.OFFLOAD),
        ({"state": ON_DEVICE, "last_used": 100.0, "keep_alive_seconds": 5.0, **NO_TIMEOUT}, 105.0, Step.OFFLOAD),
        ({"state": ON_DEVICE, "last_used": 100.0, "keep_alive_seconds": 5.0, "in_flight": 1}, 9999.0, None),
        ({"state": ON_DEVICE, "last_used": 100.0, "keep_alive_seconds": 5.0, "queued": 1}, 9999.0, None),
        ({"state": ON_DEVICE, "last_used": 100.0, "keep_alive_seconds": 5.0, "pinned": True}, 9999.0, None),
        ({"state": ON_DEVICE, "last_used": 100.0, "keep_alive_seconds": 0.0}, 100.0, Step.UNLOAD),
        ({"state": ON_DEVICE, "last_used": 100.0, "keep_alive_seconds": 0.0, **NO_TIMEOUT}, 100.0, Step.UNLOAD),
        ({"state": ON_DEVICE, "last_used": 100.0, "keep_alive_seconds": 0.0, "in_flight": 1}, 9999.0, None),
        ({"state": ON_DEVICE, "last_used": 100.0, "keep_alive_seconds": 0.0, "queued": 1}, 9999.0, None),
        ({"state": ON_DEVICE, "last_used": 100.0, "keep_alive_seconds": 0.0, "pinned": True}, 9999.0, None),
        ({"state": ON_DEVICE, "last_used": 100.0, "keep_alive_seconds": -1.0}, 9e9, None),
        ({"state": ON_DEVICE, "last_used": 100.0, "keep_alive_seconds": -1.0, **NO_TIMEOUT}, 9e9, None),
        ({"state": IN_RAM, "stepped_down_at": 130.0, "keep_alive_seconds": -1.0}, 1030.0, Step.UNLOAD),
        ({"state": IN_RAM, "last_used": 100.0, "stepped_down_at": 130.0}, 1029.9, None),
        ({"state": IN_RAM, "last_used": 100.0, "stepped_down_at": 130.0}, 1030.0, Step.UNLOAD),
        ({"state": IN_RAM, "last_used": 100.0, "stepped_down_at": 130.0, "queued": 1}, 9999.0, None),
        ({"state": IN_RAM, "last_used": 100.0, "stepped_down_at": 130.0, "pinned": True}, 9999.0, None),
        ({"state": IN_RAM, "stepped_down_at": 130.0, "unload_timeout_seconds": 0.0}, 9999.0, None),
        ({"state": State.UNLOADED, "last_used": 100.0}, 9999.0, None),
        ({"state": State.LOADING, "last_used": 100.0}, 9999.0, None),
        ({"state": State.STEPPING_DOWN, "last_used": 100.0}, 9999.0, None),
        ({"state": State.FAILED, "last_used": 100.0}, 9999.0, None),
        ({"state": State.UNAVAILABLE, "last_used": 100.0}, 9999.0, None),
    ],
)
def test_an_encoder_steps_down_when_its_time_is_over_and_no_one_uses_or_waits_for_it(
    facts: dict[str, Any], now: float, step: Step | None
) -> None:
    assert [decision.step for decision in policy.decide(now, [view(**facts)])] == ([step] if step else [])


def test_a_decision_carries_its_evidence_and_its_reason_in_words() -> None:
    up, rested = view(ON_DEVICE, last_used=1.0), view(IN_RAM, last_used=2.0, stepped_down_at=3.0, name="other")
    assert policy.decide(10_000.0, [up, rested]) == [
        Decision("minilm", Step.OFFLOAD, 1.0, "idle for 30 s"),
        Decision("other", Step.UNLOAD, 2.0, "in RAM for 900 s without use"),
    ]


def test_the_reason_says_whose_time_was_over() -> None:
    kept = [view(ON_DEVICE, name=str(kept), last_used=1.0, keep_alive_seconds=kept) for kept in (0.0, 2.5, 60.0)]
    assert [decision.reason for decision in policy.decide(100.0, kept)] == [
        "a request asked for it (keep_alive 0)",
        "idle for 2.5 s",
        "idle for 60 s",
    ]


def test_the_longest_idle_steps_down_first() -> None:
    views = [view(ON_DEVICE, name=name, last_used=used) for name, used in (("b", 20.0), ("a", 10.0), ("c", 30.0))]
    assert [decision.name for decision in policy.decide(1000.0, views)] == ["a", "b", "c"]


def test_the_next_deadline_is_the_earliest_of_all() -> None:
    views = [view(ON_DEVICE, last_used=20.0), view(IN_RAM, stepped_down_at=0.0), view(State.UNLOADED)]
    assert policy.next_deadline(30.0, views) == 50.0


def test_the_next_deadline_is_a_keep_alives_where_that_is_sooner() -> None:
    views = [view(ON_DEVICE, last_used=20.0), view(ON_DEVICE, last_used=29.0, keep_alive_seconds=2.0)]
    assert policy.next_deadline(30.0, views) == 31.0


def test_nothing_that_can_expire_means_no_deadline() -> None:
    assert policy.next_deadline(30.0, []) is None
    assert policy.next_deadline(30.0, [view(State.UNLOADED), view(ON_DEVICE, last_used=1.0, pinned=True)]) is None
    assert policy.next_deadline(30.0, [view(ON_DEVICE, last_used=1.0, keep_alive_seconds=-1.0)]) is None


def test_a_sleeper_is_not_woken_again_and_again_while_what_unloads_at_its_end_still_runs() -> None:
    running = view(ON_DEVICE, last_used=1.0, keep_alive_seconds=0.0, in_flight=1)
    assert policy.next_deadline(30.0, [running]) is None


def test_deciding_twice_from_the_same_views_gives_the_same() -> None:
    views = (view(ON_DEVICE, last_used=1.0), view(IN_RAM, stepped_down_at=2.0))
    assert policy.decide(5000.0, views) == policy.decide(5000.0, views)


# Making room on a device


def on_gpu(name: str, **fields: Any) -> SlotView:
    fields = {"last_used": 900.0, "came_up_at": 800.0, "bytes_on_device": 10, **fields}
    return view(State.ON_DEVICE, name=name, device="cuda:0", **fields)


def relieved(nbytes: int, *views: SlotView, **limits: Any) -> list[str]:
    shortage = Shortage("cuda:0", nbytes, "another program needs VRAM")
    return [decision.name for decision in relieve(1000.0, views, shortage, **limits)]


def test_the_longest_idle_make_room_first_and_no_more_than_it_takes() -> None:
    crowd = [on_gpu("new", last_used=999.0), on_gpu("old", last_used=1.0), on_gpu("older", last_used=0.5)]
    assert relieved(1, *crowd) == ["older"]
    assert relieved(10, *crowd) == ["older"]
    assert relieved(11, *crowd) == ["older", "old"]
    assert relieved(1000, *crowd) == ["older", "old", "new"]
    assert relieved(0, *crowd) == []


def test_making_room_says_for_whom_and_on_which_evidence() -> None:
    (decision,) = relieve(1000.0, [on_gpu("one")], Shortage("cuda:0", 1, "another program needs VRAM"))
    assert decision == Decision("one", Step.OFFLOAD, 900.0, "another program needs VRAM")


@pytest.mark.parametrize(
    "fields",
    [
        {"pinned": True},
        {"in_flight": 1},
        {"queued": 1},
        {"device": "cuda:1"},
        {"device": "cpu"},
        {"state": State.IN_RAM},
        {"state": State.LOADING},
        {"name": "spared"},
    ],
    ids=str,
)
def test_who_is_pinned_busy_elsewhere_or_spared_makes_no_room(fields: dict[str, Any]) -> None:
    assert relieved(1, replace(on_gpu("one"), **fields), spare="spared") == []


def test_who_just_came_up_makes_no_room_until_it_has_stayed_its_time() -> None:
    young = on_gpu("young", came_up_at=996.0)
    assert relieved(1, young, minimum_residency_seconds=5.0) == []
    assert relieved(1, young, minimum_residency_seconds=4.0) == ["young"]


def test_one_that_an_app_holds_makes_room_too() -> None:
    assert relieved(1, on_gpu("held", keep_alive_seconds=-1.0)) == ["held"]


def test_who_takes_unknown_bytes_counts_as_none_of_them() -> None:
    assert relieved(10, on_gpu("unknown", last_used=1.0, bytes_on_device=None), on_gpu("known")) == ["unknown", "known"]

"""The steps down that are due or in the way, and their reasons: pure functions of time and views."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from engine.state import SlotView, State


class Step(StrEnum):
    """A step down the ladder: one rung, or all the way."""

    OFFLOAD = "offload"
    UNLOAD = "unload"


@dataclass(frozen=True, slots=True)
class Decision:
    """One step with the evidence that it rests on; the slot refuses it when the evidence has aged."""

    name: str
    step: Step
    if_unused_since: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Shortage:
    """Bytes that must come free on a device, and the reason in words."""

    device: str
    nbytes: int
    reason: str


class Slots(Protocol):
    """All sets of weights, as the placer and the offloader see them."""

    def slots(self) -> Iterable[SlotView]:
        """Return a snapshot of each set of weights."""

    def apply_decision(self, decision: Decision) -> None:
        """Take the step that was decided on, if its evidence still holds."""


def decide(now: float, views: Iterable[SlotView]) -> list[Decision]:
    """Return the steps that are due at `now` (seconds, the views' clock), longest idle first."""
    due = [(deadline, view) for view in views if (deadline := _deadline(now, view)) is not None and deadline <= now]
    return [_decision(view) for _, view in sorted(due, key=lambda pair: pair[0])]


def relieve(
    now: float,
    views: Iterable[SlotView],
    shortage: Shortage,
    *,
    minimum_residency_seconds: float = 0.0,
    spare: str | None = None,
) -> list[Decision]:
    """Return the steps that free what is short on a device, longest idle first, and no more than that takes.

    Pinned and busy encoders, the one called `spare` and those that came up less than `minimum_residency_seconds` ago
    stay. The steps may free less than is short.
    """
    settled = now - minimum_residency_seconds
    idle = [
        view
        for view in views
        if view.device == shortage.device
        and view.state is State.ON_DEVICE
        and view.name != spare
        and not (view.pinned or view.in_flight or view.queued)
        and (view.came_up_at is None or view.came_up_at <= settled)
    ]
    decisions, freed = [], 0
    for view in sorted(idle, key=lambda view: -math.inf if view.last_used is None else view.last_used):
        if freed >= shortage.nbytes:
            break
        decisions.append(Decision(view.name, Step.OFFLOAD, view.last_used, shortage.reason))
        freed += view.bytes_on_device or 0
    return decisions


def next_deadline(now: float, views: Iterable[SlotView]) -> float | None:
    """Return the earliest instant at which `decide` could want something, or None when nothing can expire."""
    return min((at for view in views if (at := view.next_deadline(now)) is not None), default=None)


def _deadline(now: float, view: SlotView) -> float | None:
    return None if view.in_flight or view.queued else view.next_deadline(now)


def _decision(view: SlotView) -> Decision:
    if view.state is State.IN_RAM:
        reason = f"in RAM for {view.unload_timeout_seconds:g} s without use"
        return Decision(view.name, Step.UNLOAD, view.last_used, reason)
    if view.keep_alive_seconds == 0:
        return Decision(view.name, Step.UNLOAD, view.last_used, "a request asked for it (keep_alive 0)")
    idle = view.idle_timeout_seconds if view.keep_alive_seconds is None else view.keep_alive_seconds
    return Decision(view.name, Step.OFFLOAD, view.last_used, f"idle for {idle:g} s")

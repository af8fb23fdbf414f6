"""What a person asks of one encoder, and how it is answered where others share its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from engine.encoders.encoder import Encoder
from engine.encoders.registry import Encoders
from engine.slot.slot import Slot, pinned
from engine.state import Outcome


def step_down(encoders: Encoders, encoder: Encoder, step: Callable[..., Outcome]) -> Outcome:
    """Take `step`, one of `Slot`'s ways down; refused where a pin holds the weights, and then whose is told."""
    outcome, name = step(encoder.slot, reason="by hand"), encoder.config.name
    reason = outcome.reason
    if reason == pinned(encoder.slot.name):
        reason = pinned(name) if encoder.usage.pinned else _held_by(_holders(encoders, encoder))
    return replace(outcome, name=name, reason=reason)


def pin(encoder: Encoder) -> Outcome:
    """Keep the weights from stepping down until all who pinned them let go; loads nothing."""
    encoder.usage.pinned = True
    return replace(encoder.slot.pin(True), name=encoder.config.name)


def unpin(encoders: Encoders, encoder: Encoder) -> Outcome:
    """Take back its own pin; the answer says who still holds the weights."""
    encoder.usage.pinned = False
    holders = _holders(encoders, encoder)
    return replace(encoder.slot.pin(bool(holders)), name=encoder.config.name, reason=_held_by(holders))


def warm_all(encoders: Encoders) -> tuple[Outcome, ...]:
    """Bring every encoder to its device and wait; one that fails answers `refused`, its view says why."""
    waits = [(encoder, encoder.queue_quietly(Slot.warm)) for encoder in encoders]
    return tuple(_came_up(encoders, encoder, wait is not None and wait.result()) for encoder, wait in waits)


def _came_up(encoders: Encoders, encoder: Encoder, succeeded: bool) -> Outcome:
    view = encoder.view(encoders.config.hardware)
    reason = view.error.message if view.error and not succeeded else None
    return Outcome(view.name, "done" if succeeded else "refused", view.state, reason=reason)


def _holders(encoders: Encoders, encoder: Encoder) -> list[str]:
    return [other.config.name for other in encoders.sharers(encoder) if other.usage.pinned]


def _held_by(names: list[str]) -> str | None:
    """Say whose pin holds weights that others share; None where there is none."""
    return f"{', '.join(names)} shares its weights and is pinned." if names else None

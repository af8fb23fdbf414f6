"""The control verbs: load, step down, pin and evacuate, by hand or for the whole computer."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

from engine.encoders.encoder import Encoder
from engine.encoders.registry import Encoders
from engine.slot.slot import Slot
from engine.state import Outcome, Result

_BY_HAND = "by hand"


def submit_load(encoders: Encoders, name: str, clock: Callable[[], float], *, retry: bool) -> Future[Outcome]:
    """Queue a load, or a retry, and return its future; raises as `Encoders.queue`."""

    def run(encoder: Encoder) -> Outcome:
        began = clock()
        (encoder.slot.retry if retry else encoder.slot.warm)()
        return Outcome(encoder.config.name, Result.DONE, encoder.slot.view().state, seconds=clock() - began)

    return encoders.queue(name, run)


def load_all(encoders: Encoders) -> tuple[Outcome, ...]:
    """Bring every encoder to its device and wait; one that fails answers `refused`, its view says why."""
    waits = [(encoder, encoder.queue_climb(Slot.warm)) for encoder in encoders]
    return tuple(_came_up(encoder, wait is not None and wait.result()) for encoder, wait in waits)


def offload(encoders: Encoders, encoder: Encoder) -> Outcome:
    """Take the weights off their device, unless in use or pinned."""
    return _for_encoder(encoders, encoder, encoder.slot.offload(reason=_BY_HAND))


def unload(encoders: Encoders, encoder: Encoder) -> Outcome:
    """Drop the weights, unless in use or pinned."""
    return _for_encoder(encoders, encoder, encoder.slot.unload(reason=_BY_HAND))


def pin(encoder: Encoder) -> Outcome:
    """Keep the weights from stepping down until all encoders that pinned them are unpinned; loads nothing."""
    encoder.usage.pinned = True
    return replace(encoder.slot.pin(True), name=encoder.config.name)


def unpin(encoders: Encoders, encoder: Encoder) -> Outcome:
    """Take back the encoder's own pin; the outcome names the encoders whose pins still hold the weights."""
    encoder.usage.pinned = False
    holders = _holders(encoders, encoder)
    outcome = encoder.slot.pin(bool(holders))
    return replace(outcome, name=encoder.config.name, pinned_by=holders, reason=_shared_pin(holders))


def evacuate(encoders: Encoders, reason: str, timeout: float) -> None:
    """Take all weights off devices that are about to lose them; waits up to `timeout` seconds for those in use."""
    ends = time.monotonic() + timeout
    # Idle encoders first: one in use may take all the time there is.
    busy = [one for one in encoders.at_work if one.slot.evacuate(reason, 0.0).result is Result.BUSY]
    for encoder in busy:
        encoder.slot.evacuate(reason, max(0.0, ends - time.monotonic()))


def _came_up(encoder: Encoder, succeeded: bool) -> Outcome:
    view, name = encoder.slot.view(), encoder.config.name
    if succeeded:
        return Outcome(name, Result.DONE, view.state)
    return Outcome(name, Result.REFUSED, view.state, reason=view.error.message if view.error else None)


def _for_encoder(encoders: Encoders, encoder: Encoder, outcome: Outcome) -> Outcome:
    """Return a slot's outcome as that of one encoder on it, and where pins hold the weights, say whose."""
    name = encoder.config.name
    if not outcome.pinned_by:
        return replace(outcome, name=name)
    if encoder.usage.pinned:
        return replace(outcome, name=name, pinned_by=(name,), reason=f"{name} is pinned.")
    holders = _holders(encoders, encoder)
    return replace(outcome, name=name, pinned_by=holders, reason=_shared_pin(holders))


def _holders(encoders: Encoders, encoder: Encoder) -> tuple[str, ...]:
    return tuple(other.config.name for other in encoders.sharers(encoder) if other.usage.pinned)


def _shared_pin(names: tuple[str, ...]) -> str | None:
    """The pins that hold shared weights, in words; None where there are none."""
    return f"{', '.join(names)} shares its weights and is pinned." if names else None

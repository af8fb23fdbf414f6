"""One set of weights for all encoders that are the same model in the same way: what makes them so, on which terms."""

from __future__ import annotations

import math
from collections.abc import Iterable

from engine.adapters.sources import locate as references
from engine.settings.config import EncoderConfig
from engine.settings.effective import Terms

STAY = -1.0
"""A `keep_alive` for ever."""


def weights_of(encoder: EncoderConfig, device: str) -> tuple[object, ...]:
    """Return what is equal for two encoders that share one set of weights; `device` is the one that they wish for."""
    own = (encoder.base, encoder.axes, repr(sorted(encoder.options.items())), encoder.trust_remote_code)
    return (encoder.kind, encoder.part, references.canonical(encoder.model), device, encoder.dtype, *own)


def essence(encoder: EncoderConfig, device: str) -> tuple[object, ...]:
    """Return what weights that go on under other settings must keep: what they are, and how they wait."""
    return (*weights_of(encoder, device), encoder.home, encoder.stream_layers)


def longest(terms: Iterable[Terms]) -> Terms:
    """Return the terms on which everybody gets at least the time that was promised; 0 is for ever."""
    found = list(terms)
    return Terms(
        idle_timeout_seconds=_longest(one.idle_timeout_seconds for one in found),
        unload_timeout_seconds=_longest(one.unload_timeout_seconds for one in found),
        max_keep_alive_seconds=found[0].max_keep_alive_seconds,
    )


def longest_promise(asked: float, others: Iterable[float]) -> float:
    """Return the `keep_alive` that keeps what one encoder `asked` for and what `others` were promised; -1 = stay."""
    found = max(_for_ever(seconds, below=0.0) for seconds in (asked, *others))
    return STAY if found == math.inf else found


def promised(keep_alive: float | None, terms: Terms) -> float:
    """Return how long an encoder may stay after a use, as a `keep_alive`: what was asked, else its own timeout."""
    if keep_alive is not None:
        return keep_alive
    return terms.idle_timeout_seconds or STAY


def _longest(timeouts: Iterable[float]) -> float:
    found = max(timeout or math.inf for timeout in timeouts)
    return 0.0 if found == math.inf else found


def _for_ever(seconds: float, *, below: float) -> float:
    return math.inf if seconds < below else seconds

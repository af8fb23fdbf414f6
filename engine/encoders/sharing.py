"""When encoders share one set of weights, and which timeouts then apply."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from engine.settings import references
from engine.settings.config import EncoderConfig
from engine.settings.effective import Timeouts

STAY: Final = -1.0
"""A `keep_alive` without end."""


def weights_key(encoder: EncoderConfig, device: str) -> tuple[object, ...]:
    """Return a key that is equal for encoders on one set of weights; `device` is the one that the settings name."""
    # With the tokens, because all that share weights read with one tokenizer and show one limit.
    own = (
        encoder.base,
        encoder.axes,
        repr(sorted(encoder.options.items())),
        encoder.trust_remote_code,
        encoder.max_tokens,
    )
    return (encoder.kind, encoder.part, references.canonical(encoder.model), device, encoder.dtype, *own)


def slot_key(encoder: EncoderConfig, device: str) -> tuple[object, ...]:
    """Return a key of the weights and of how they wait; a slot goes on under new settings of the same key."""
    return (*weights_key(encoder, device), encoder.home, encoder.stream_layers)


def longest_timeouts(timeouts: Iterable[Timeouts]) -> Timeouts:
    """Return timeouts under which every encoder keeps at least the time of its own; 0 = never."""
    found = list(timeouts)
    return Timeouts(
        idle_timeout_seconds=_longest(one.idle_timeout_seconds for one in found),
        unload_timeout_seconds=_longest(one.unload_timeout_seconds for one in found),
        max_keep_alive_seconds=found[0].max_keep_alive_seconds,
    )


def longest_stay(asked: float, others: Iterable[float]) -> float:
    """Return the longest of the `keep_alive` that one encoder `asked` for and those of the others; -1 = stay."""
    longest = max(math.inf if seconds < 0 else seconds for seconds in (asked, *others))
    return STAY if longest == math.inf else longest


def stay_seconds(keep_alive: float | None, timeouts: Timeouts) -> float:
    """Return how long an encoder may stay after a use, as a `keep_alive`: the one it was given, else its timeout."""
    if keep_alive is not None:
        return keep_alive
    return timeouts.idle_timeout_seconds or STAY


def _longest(timeouts: Iterable[float]) -> float:
    longest = max(timeout or math.inf for timeout in timeouts)
    return 0.0 if longest == math.inf else longest

"""One set of weights for all encoders that are the same model in the same way: who shares with whom, and on what terms.

The first of them in the settings leads: the slot has its name, and where the others differ in how weights wait (`home`,
`stream_layers`) its settings count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from engine.adapters.sources import references
from engine.config import Config, EncoderConfig
from engine.encoder import Encoder
from engine.policy import Decision
from engine.state import EncoderView
from engine.terms import Terms, terms_of

Build = Callable[[EncoderConfig, str], Encoder]


def in_force(config: Config) -> Iterator[tuple[EncoderConfig, str]]:
    """Each component's settings with what its adapter must know of `[hardware]`, and the device that it wishes for."""
    for encoder in config.encoders:
        for settings in encoder.components:
            streams = config.hardware.stream_layers if settings.stream_layers is None else settings.stream_layers
            yield replace(settings, stream_layers=streams), settings.device or config.hardware.device


def arranged(config: Config, before: Mapping[str, Encoder], build: Build) -> dict[str, Encoder]:
    """Return the encoders of `config` by name: those of `before` go on where their weights can, others are built."""
    after: dict[str, Encoder] = {}
    leaders: dict[tuple[object, ...], Encoder] = {}
    for settings, device in in_force(config):
        key, old = _weights_of(settings, device), before.get(settings.name)
        if key in leaders:
            after[settings.name] = leaders[key].shared_by(settings, device, old)
            continue
        if old is not None and old.leads and old.serves(settings, device):
            leaders[key] = old.under(settings, device)
        else:
            leaders[key] = build(settings, device)
        after[settings.name] = leaders[key]
    for group in groups(after.values()):
        terms = longest(terms_of(encoder.config, config.hardware) for encoder in group)
        group[0].slot.configure(terms, pinned=any(encoder.usage.pinned for encoder in group))
    return after


def groups(encoders: Iterable[Encoder]) -> list[list[Encoder]]:
    """Return the encoders of each slot, the leader first."""
    found: dict[int, list[Encoder]] = {}
    for encoder in encoders:
        found.setdefault(id(encoder.slot), []).append(encoder)
    return list(found.values())


def longest(terms: Iterable[Terms]) -> Terms:
    """Return the terms on which everybody gets at least the time that was promised; 0 is for ever."""
    found = list(terms)
    return Terms(
        idle_timeout_seconds=_longest(one.idle_timeout_seconds for one in found),
        unload_timeout_seconds=_longest(one.unload_timeout_seconds for one in found),
        max_keep_alive_seconds=found[0].max_keep_alive_seconds,
    )


class Ladder:
    """The sets of weights, each once, for those who decide which of them moves."""

    def __init__(self, views: Callable[[], Iterable[EncoderView]], apply: Callable[[Decision], None]) -> None:
        self._views = views
        self._apply = apply

    def views(self) -> Iterable[EncoderView]:
        """Return a snapshot of every slot, by its leader's name."""
        return self._views()

    def apply_decision(self, decision: Decision) -> None:
        """Do what was decided, if its evidence still holds."""
        self._apply(decision)


def _weights_of(encoder: EncoderConfig, device: str) -> tuple[object, ...]:
    """What two encoders that share one set of weights have in common."""
    own = (encoder.base, encoder.axes, repr(sorted(encoder.options.items())), encoder.trust_remote_code)
    return (encoder.kind, encoder.part, references.canonical(encoder.model), device, encoder.dtype, *own)


def _longest(timeouts: Iterable[float]) -> float:
    longest_one = max(timeout or math.inf for timeout in timeouts)
    return 0.0 if longest_one == math.inf else longest_one

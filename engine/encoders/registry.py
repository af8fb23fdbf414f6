"""The configured encoders by name: which of them share a set of weights, and how new settings take their place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from engine.encoders.encoder import Encoder
from engine.encoders.sharing import essence, longest, longest_promise, promised, weights_of
from engine.errors import Closed, QueueFull, UnknownEncoder
from engine.residency.policy import Decision, Step
from engine.settings.config import Config, EncoderConfig, Hardware
from engine.settings.eagerness import Eagerness
from engine.settings.effective import terms_of
from engine.settings.naming import named
from engine.state import EncoderView

_LONGEST_WAIT_FOR_THE_LAST_SECONDS: Final = 30.0

Build = Callable[[EncoderConfig, str, Hardware], Encoder]


class Encoders:
    """Those in force, and those on their way out; the engine alone changes them.

    The first in the settings of those that share weights leads: the slot has its name, and where the others differ in
    how weights wait (`home`, `stream_layers`) its settings count. To whoever decides what moves, it is the ladder: each
    set of weights once.
    """

    def __init__(self, build: Build) -> None:
        self.config = Config(encoders=())
        self._build = build
        self._by_name: Mapping[str, Encoder] = {}
        self._retired: list[Encoder] = []

    def __iter__(self) -> Iterator[Encoder]:
        return iter(self._by_name.values())

    @property
    def at_work(self) -> tuple[Encoder, ...]:
        """All of them, with those that the settings no longer name and that are not done yet."""
        return (*self._by_name.values(), *self._retired)

    def find(self, name: str) -> Encoder:
        """Return an encoder, or a part of one, by its name or an alias; raises UnknownEncoder."""
        encoders = self._by_name
        if name in encoders:
            return encoders[name]
        for encoder in encoders.values():
            if name in encoder.config.aliases:
                return encoder
        parts = " and ".join(component.name for component in named(self.config, name))
        raise UnknownEncoder(f"{name} has parts, each with weights of its own: {parts}.", next_step="Name one of them.")

    def sharers(self, encoder: Encoder) -> tuple[Encoder, ...]:
        """Return the others on the same weights."""
        own = encoder.config.name
        return tuple(other for other in self if other.slot is encoder.slot and other.config.name != own)

    def promise(self, encoder: Encoder, keep_alive: float | None) -> float | None:
        """Return the `keep_alive` for the weights when a use of `encoder` asks for one: the others' promises hold."""
        others = self.sharers(encoder)
        if keep_alive is None or not others:
            return keep_alive
        if encoder.slot.keep_alive_seconds is None:
            # They stepped down since, and with that every promise ended.
            for one in (encoder, *others):
                one.usage.keep_alive = None
        encoder.usage.keep_alive = keep_alive
        hardware = self.config.hardware
        return longest_promise(keep_alive, (promised(o.usage.keep_alive, terms_of(o.config, hardware)) for o in others))

    def arrange(self, config: Config) -> tuple[list[str], list[tuple[Encoder, Eagerness]]]:
        """Put settings in force: weights go on where they can, others are made, and those of nobody are retired.

        Returns the names that now mean other weights or none, and whom to bring up, as far as its settings now ask.
        """
        old, before = self.config, self._by_name
        meant = {encoder.slot.name: encoder.slot for encoder in before.values()}
        after = _arranged(config, before, self._build)
        self.config, self._by_name = config, after
        gone = _without(before.values(), after.values())
        self._retired = [leaving for leaving in (*self._retired, *gone) if leaving.worker.at_work]
        for group in _by_slot(gone):
            group[0].retire()
            for leaving in group:
                if leaving.worker.at_work and (heir := after.get(leaving.config.name)):
                    # Its weights may be all that there is room for.
                    with contextlib.suppress(QueueFull, Closed):
                        heir.worker.submit(partial(leaving.worker.wait, _LONGEST_WAIT_FOR_THE_LAST_SECONDS))
        new = _without(after.values(), before.values())
        eager = []
        for name, now in after.items():
            eagerness, was = Eagerness.of(now.config, config.hardware), before.get(name)
            if was is None or now in new or eagerness is not Eagerness.of(was.config, old.hardware):
                eager.append((now, eagerness))
        mean = {encoder.slot.name: encoder.slot for encoder in after.values()}
        return [name for name, slot in meant.items() if mean.get(name) is not slot], eager

    # The ladder

    def views(self) -> tuple[EncoderView, ...]:
        """Return a snapshot of each set of weights, by its leader's name."""
        return tuple(encoder.view(self.config.hardware) for encoder in self if encoder.leads)

    def apply_decision(self, decision: Decision) -> None:
        """Do what the policy decided, if its evidence still holds."""
        encoder = self._by_name.get(decision.name)
        if encoder is None:
            return
        step = encoder.slot.offload if decision.step is Step.OFFLOAD else encoder.slot.unload
        step(if_unused_since=decision.if_unused_since, reason=decision.reason)


def _arranged(config: Config, before: Mapping[str, Encoder], build: Build) -> dict[str, Encoder]:
    """The encoders of `config` by name, those that share weights beside each other on one slot."""
    groups: dict[tuple[object, ...], list[tuple[EncoderConfig, str]]] = {}
    components = list(_in_force(config))
    for settings, device in components:
        groups.setdefault(weights_of(settings, device), []).append((settings, device))
    after: dict[str, Encoder] = {}
    for group in groups.values():
        leader, device = group[0]
        wanted = essence(leader, device)
        olds = (before[settings.name] for settings, _ in group if settings.name in before)
        kept = next((old for old in olds if old.made_for == wanted), None)
        if kept is None:
            kept = build(leader, device, config.hardware)
        kept.slot.name = leader.name
        for settings, wish in group:
            after[settings.name] = kept.under(settings, wish, before.get(settings.name))
        members = [after[settings.name] for settings, _ in group]
        terms = longest(terms_of(member.config, config.hardware) for member in members)
        kept.slot.configure(terms, pinned=any(member.usage.pinned for member in members))
    return {settings.name: after[settings.name] for settings, _ in components}


def _in_force(config: Config) -> Iterator[tuple[EncoderConfig, str]]:
    """Each component's settings with what its adapter must know of `[hardware]`, and the device that it wishes for."""
    for encoder in config.encoders:
        for settings in encoder.components:
            streams = config.hardware.stream_layers if settings.stream_layers is None else settings.stream_layers
            yield replace(settings, stream_layers=streams), settings.device or config.hardware.device


def _by_slot(encoders: Iterable[Encoder]) -> list[list[Encoder]]:
    found: dict[int, list[Encoder]] = {}
    for encoder in encoders:
        found.setdefault(id(encoder.slot), []).append(encoder)
    return list(found.values())


def _without(encoders: Iterable[Encoder], others: Iterable[Encoder]) -> list[Encoder]:
    """The encoders whose slot none of the others has."""
    slots = {other.slot for other in others}
    return [encoder for encoder in encoders if encoder.slot not in slots]

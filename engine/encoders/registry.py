"""The configured encoders by name, and their succession when the settings change."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

from engine.encoders.encoder import Encoder
from engine.encoders.sharing import longest_stay, longest_timeouts, slot_key, stay_seconds, weights_key
from engine.errors import Closed, QueueFull, UnknownEncoder
from engine.events import Event, SlotEvent
from engine.operations.inputs import check_keep_alive
from engine.residency.policy import Decision, Step
from engine.settings.config import Config, EncoderConfig
from engine.settings.effective import Effective
from engine.settings.naming import components_named
from engine.slot.slot import Slot
from engine.state import EncoderView, SlotView

_LONGEST_WAIT_FOR_THE_LAST_SECONDS: Final = 30.0

T = TypeVar("T")
Build = Callable[[EncoderConfig, Effective], Encoder]
Configured = tuple[EncoderConfig, Effective]


@dataclass(frozen=True, slots=True)
class Rearranged:
    """The consequences of new settings."""

    forgotten: tuple[str, ...]
    """Names that mean other weights now, or none."""
    to_bring_up: tuple[Encoder, ...]
    """Encoders that come up by their settings without a use, as far as those say."""


class Encoders:
    """The encoders in force, and those on their way out; the engine alone changes them.

    Of the encoders that share weights the first in the settings leads: the slot has its name, and where the others
    differ in how weights wait (`home`, `stream_layers`) its settings count. The policy sees each set of weights once.
    """

    def __init__(self, publish: Callable[[Event], None]) -> None:
        self.config = Config(encoders=())
        """The settings in force."""
        self._publish = publish
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
        parts = " and ".join(component.name for component in components_named(self.config, name))
        raise UnknownEncoder(f"{name} has parts, each with weights of its own: {parts}.", next_step="Name one of them.")

    def sharers(self, encoder: Encoder) -> tuple[Encoder, ...]:
        """Return the others on the same weights."""
        own = encoder.config.name
        return tuple(other for other in self if other.slot is encoder.slot and other.config.name != own)

    def view(self, encoder: Encoder, *, measured: bool = False) -> EncoderView:
        """Return a snapshot of an encoder; `measured` is as in `Slot.view`."""
        return encoder.view(self.config.hardware, self.sharers(encoder), measured=measured)

    # Use

    def submit(
        self,
        name: str,
        operation: Callable[[Any], T],
        used_by: str | None = None,
        keep_alive: float | None = None,
    ) -> Future[T]:
        """Queue `operation` for an encoder; it gets the adapter, under a lease, on the encoder's own thread.

        Raises UnknownEncoder, InvalidInput, QueueFull or Closed; the future raises as `execute`.
        """
        check_keep_alive(keep_alive)

        def run(encoder: Encoder) -> T:
            return encoder.run(operation, used_by, self.stay_after(encoder, keep_alive))

        return self.queue(name, run)

    def queue(self, name: str, call: Callable[[Encoder], T]) -> Future[T]:
        """Queue `call` for an encoder; one that the settings replace at this very moment gives way to its heir."""
        while True:
            encoder = self.find(name)
            try:
                return encoder.worker.submit(partial(call, encoder))
            except Closed:
                if self.find(name).worker is encoder.worker:
                    raise

    def stay_after(self, encoder: Encoder, keep_alive: float | None) -> float | None:
        """Return the `keep_alive` of the weights after a use that asks for one; those of the other encoders hold."""
        others = self.sharers(encoder)
        if keep_alive is None or not others:
            return keep_alive
        if encoder.slot.keep_alive_seconds is None:
            # The weights stepped down since, which ended every keep_alive.
            for one in (encoder, *others):
                one.usage.keep_alive = None
        encoder.usage.keep_alive = keep_alive
        return longest_stay(keep_alive, (stay_seconds(o.usage.keep_alive, o.effective.timeouts) for o in others))

    # New settings

    def rearrange(self, config: Config, build: Build) -> Rearranged:
        """Put settings in force: weights go on where they can, others are built, and those without a name retire."""
        before = self._by_name
        # Now, because a slot that goes on under another leader is renamed.
        old_slots = _by_leader(before)
        after = _on_slots(config, before, build)
        self.config, self._by_name = config, after
        gone = _without(before.values(), after.values())
        self._retired = [leaving for leaving in (*self._retired, *gone) if leaving.worker.at_work]
        _retire(gone, after)
        new_slots = _by_leader(after)
        return Rearranged(
            forgotten=tuple(name for name, slot in old_slots.items() if new_slots.get(name) is not slot),
            to_bring_up=tuple(_eager(before, after)),
        )

    # What the policy and the placer see

    def slots(self) -> tuple[SlotView, ...]:
        """Return a snapshot of each set of weights, by its leader's name."""
        leaders = (encoder for encoder in self if encoder.leads)
        return tuple(replace(leader.slot.view(), queued=leader.worker.queued) for leader in leaders)

    def apply_decision(self, decision: Decision) -> None:
        """Take the step that the policy decided on, if its evidence still holds."""
        encoder = self._by_name.get(decision.name)
        if encoder is None:
            return
        step = encoder.slot.offload if decision.step is Step.OFFLOAD else encoder.slot.unload
        step(if_unused_since=decision.if_unused_since, reason=decision.reason)

    def publish(self, slot: Slot, event: SlotEvent) -> None:
        """Publish an event of one set of weights, for each encoder on it; of retired weights for those that had it."""
        names = [encoder.config.name for encoder in self.at_work if encoder.slot is slot]
        for name in names or [event.name]:
            self._publish(replace(event, name=name))


def _by_leader(encoders: Mapping[str, Encoder]) -> dict[str, Slot]:
    return {encoder.slot.name: encoder.slot for encoder in encoders.values()}


def _components(config: Config) -> Iterator[Configured]:
    """The settings of each component, its `stream_layers` filled in for its adapter, and the values in force."""
    for encoder in config.encoders:
        for settings in encoder.components:
            effective = Effective.of(settings, config.hardware)
            yield replace(settings, stream_layers=effective.stream_layers), effective


def _on_slots(config: Config, before: Mapping[str, Encoder], build: Build) -> dict[str, Encoder]:
    """The encoders of `config` by name, those that share weights on one slot."""
    components = list(_components(config))
    groups: dict[tuple[object, ...], list[Configured]] = {}
    for settings, effective in components:
        groups.setdefault(weights_key(settings, effective.device), []).append((settings, effective))
    after: dict[str, Encoder] = {}
    for group in groups.values():
        leader, led = group[0]
        wanted = slot_key(leader, led.device)
        olds = (before[settings.name] for settings, _ in group if settings.name in before)
        kept = next((old for old in olds if old.made_for == wanted), None) or build(leader, led)
        members = [kept.with_settings(settings, effective, before.get(settings.name)) for settings, effective in group]
        after |= {member.config.name: member for member in members}
        timeouts = longest_timeouts(member.effective.timeouts for member in members)
        kept.slot.configure(timeouts, name=leader.name, pinned=any(member.usage.pinned for member in members))
    return {settings.name: after[settings.name] for settings, _ in components}


def _retire(gone: list[Encoder], heirs: Mapping[str, Encoder]) -> None:
    """Close the slots of encoders that are gone; those that have their names now wait for that."""
    by_slot: dict[Slot, list[Encoder]] = {}
    for leaving in gone:
        by_slot.setdefault(leaving.slot, []).append(leaving)
    for group in by_slot.values():
        group[0].retire()
        for leaving in group:
            if leaving.worker.at_work and (heir := heirs.get(leaving.config.name)):
                # The new encoder may need the memory that the old one holds.
                with contextlib.suppress(QueueFull, Closed):
                    heir.worker.submit(partial(leaving.worker.wait, _LONGEST_WAIT_FOR_THE_LAST_SECONDS))


def _eager(before: Mapping[str, Encoder], after: Mapping[str, Encoder]) -> Iterator[Encoder]:
    """The encoders that are new, have new weights, or are to come up another way than before."""
    new = {encoder.slot for encoder in _without(after.values(), before.values())}
    for name, encoder in after.items():
        was = before.get(name)
        if was is None or encoder.slot in new or encoder.effective.eagerness is not was.effective.eagerness:
            yield encoder


def _without(encoders: Iterable[Encoder], others: Iterable[Encoder]) -> list[Encoder]:
    """The encoders whose slot none of the others has."""
    slots = {other.slot for other in others}
    return [encoder for encoder in encoders if encoder.slot not in slots]

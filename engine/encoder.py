"""One configured encoder: its settings, its slot, and the worker that runs its requests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial

from engine.config import EncoderConfig, Hardware
from engine.eagerness import Eagerness
from engine.errors import Closed, PilotlightError, QueueFull
from engine.ignored import ignored_options
from engine.slot import Slot
from engine.state import EncoderView
from engine.usage import Usage
from engine.worker import Worker


@dataclass(frozen=True, slots=True)
class Encoder:
    """What the engine holds of one encoder; new settings make another one of it, on the same slot where that can be."""

    config: EncoderConfig
    device: str
    """The device that it wishes for, as the settings spell it."""
    slot: Slot
    worker: Worker
    usage: Usage

    @property
    def leads(self) -> bool:
        """Whether its slot is named for it, and not for another that shares it."""
        return self.slot.name == self.config.name

    def serves(self, config: EncoderConfig, device: str) -> bool:
        """Whether its weights can go on under `config`, or another must take its place."""
        return _essence(self.config, self.device) == _essence(config, device)

    def under(self, config: EncoderConfig, device: str) -> Encoder:
        """Return it with settings that it `serves`; a pin that they do not change stays as it was set by hand."""
        if self.config.pin != config.pin:
            self.usage.pinned = config.pin
        return replace(self, config=config, device=device)

    def shared_by(self, config: EncoderConfig, device: str, before: Encoder | None) -> Encoder:
        """Return another encoder on the same weights; `before` is what it was under other settings."""
        usage = Usage(pinned=config.pin) if before is None else before.under(config, device).usage
        return replace(self, config=config, device=device, usage=usage)

    def view(self, hardware: Hardware, sharers: tuple[Encoder, ...] = (), *, measured: bool = False) -> EncoderView:
        """Return a snapshot; `sharers` are the others on the same weights, `measured` is as in `Slot.view`."""
        config = self.config
        view = self.slot.view(
            kind=config.kind,
            model=config.model,
            aliases=config.aliases,
            is_default=config.default,
            queued=self.worker.queued,
            measured=measured,
        )
        in_force = replace(config, pin=view.pinned)
        leader = next((other.config for other in sharers if other.leads), None)
        ignored = ignored_options(
            in_force, hardware, device=view.chosen_device, streamable=view.streamable, leader=leader
        )
        view = replace(view, name=config.name, ignored_options=ignored)
        if not sharers:
            return view
        return replace(
            view,
            in_flight=self.usage.in_flight,
            last_used_by=self.usage.last_used_by,
            shared_with=tuple(other.config.name for other in sharers),
        )

    def bring_up(self, eagerness: Eagerness) -> None:
        """Start to bring it as far up as its settings ask without a use, on its own thread."""
        if eagerness is Eagerness.TO_DEVICE:
            self.queue_quietly(Slot.warm)
        elif eagerness is Eagerness.TO_RAM:
            self.queue_quietly(Slot.preload)

    def queue_quietly(self, climb: Callable[[Slot], None]) -> Future[bool] | None:
        """Queue a climb for nobody in particular: a failure is kept and shown by the slot, and stops nothing else.

        Where the queue is full nothing is queued, because what waits there brings the encoder up anyway.
        """
        with contextlib.suppress(QueueFull, Closed):
            return self.worker.submit(partial(_succeeds, climb, self.slot))
        return None

    def retire(self) -> None:
        """Close it, which the settings no longer name, after the requests that already wait for it."""
        self.worker.finish(partial(self.slot.close, timeout=0.0))


def _essence(encoder: EncoderConfig, device: str) -> tuple[object, ...]:
    """What an encoder that goes on under new settings must keep."""
    of_its_kind = (encoder.base, encoder.axes, encoder.options, encoder.score_floor, encoder.trust_remote_code)
    how = (device, encoder.stream_layers, encoder.home, encoder.dtype)
    return (encoder.kind, encoder.part, encoder.model, *how, *of_its_kind)


def _succeeds(climb: Callable[[Slot], None], slot: Slot) -> bool:
    try:
        climb(slot)
    except PilotlightError:
        return False
    return True

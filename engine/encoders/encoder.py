"""One configured encoder: its settings, its slot, and the worker that runs its requests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial

from engine.encoders.ignored import ignored_options
from engine.encoders.sharing import weights_of
from engine.encoders.usage import Usage
from engine.errors import Closed, PilotlightError, QueueFull
from engine.serving.worker import Worker
from engine.settings.config import EncoderConfig, Hardware
from engine.settings.eagerness import Eagerness
from engine.slot.slot import Slot
from engine.state import EncoderView


@dataclass(frozen=True, slots=True)
class Encoder:
    """What the engine holds of one encoder; new settings make another one of it, on the same slot where that can be."""

    config: EncoderConfig
    device: str
    """The device that it wishes for, as the settings spell it."""
    slot: Slot
    worker: Worker
    usage: Usage

    made_for: tuple[object, ...]
    """The essence of the settings that its weights were made for; those of another that shares them, perhaps."""

    @property
    def leads(self) -> bool:
        """Whether its slot is named for it, and not for another that shares it."""
        return self.slot.name == self.config.name

    def under(self, config: EncoderConfig, device: str, before: Encoder | None) -> Encoder:
        """Return the encoder of `config` on these weights; `before` is what had its name until now.

        Where that was of the same weights, a pin that the settings do not change stays as it was set by hand.
        """
        if before is None or weights_of(before.config, before.device) != weights_of(config, device):
            usage = Usage(pinned=config.pin)
        else:
            usage = before.usage
            if before.config.pin != config.pin:
                usage.pinned = config.pin
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
        metadata = view.metadata
        if config.score_floor is not None:
            metadata = {**metadata, "score_floor": config.score_floor}
        view = replace(view, name=config.name, part=config.part, ignored_options=ignored, metadata=metadata)
        if not sharers:
            return view
        own = self.usage.in_flight
        return replace(
            view,
            in_flight=own,
            in_flight_of_sharers=max(0, view.in_flight - own),
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


def _succeeds(climb: Callable[[Slot], None], slot: Slot) -> bool:
    try:
        climb(slot)
    except PilotlightError:
        return False
    return True

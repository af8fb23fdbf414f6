"""Builds an encoder from its settings: adapter, slot and worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from engine.adapters.context import Surroundings
from engine.adapters.protocol import Adapter
from engine.adapters.registry import adapter_class
from engine.encoders.encoder import Encoder, Usage
from engine.encoders.sharing import slot_key
from engine.events import Downloading, SlotEvent
from engine.residency.placer import Placer
from engine.serving.worker import Worker
from engine.settings.config import EncoderConfig
from engine.settings.effective import Effective
from engine.slot.slot import Slot
from engine.state import Download

AdapterFactory = Callable[[EncoderConfig, str, Surroundings], Adapter]
"""Makes an adapter of an encoder's settings, the device that they name, and its context; loads nothing."""


class Factory:
    """Makes encoders that the engine then owns; `publish` gets each event with the slot that it is of."""

    def __init__(
        self,
        adapter: AdapterFactory | None,
        context: Surroundings,
        placer: Placer,
        publish: Callable[[Slot, SlotEvent], None],
        clock: Callable[[], float],
    ) -> None:
        self._adapter = adapter or _adapter
        self._context = context
        self._placer = placer
        self._publish = publish
        self._clock = clock

    def __call__(self, settings: EncoderConfig, effective: Effective) -> Encoder:
        """Return a new encoder on weights of its own; loads nothing and starts no thread."""

        def publish(event: SlotEvent) -> None:
            self._publish(slot, event)

        def report_download(download: Download) -> None:
            publish(Downloading(slot.name, download))

        context = replace(self._context, tell=report_download)
        slot = Slot(
            settings.name,
            self._adapter(settings, effective.device, context),
            effective.timeouts,
            pinned=settings.pin,
            admission=self._placer,
            publish=publish,
            clock=self._clock,
        )
        key = slot_key(settings, effective.device)
        usage = Usage(pinned=settings.pin)
        return Encoder(settings, effective, slot, Worker(settings.name), self._placer, usage, key)


def _adapter(config: EncoderConfig, device: str, context: Surroundings) -> Adapter:
    return adapter_class(config.kind, config.part)(config, device, context)

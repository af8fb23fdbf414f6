"""Builds an encoder from its settings: adapter, slot and worker."""

from __future__ import annotations

from collections.abc import Callable

from engine.adapters.context import AdapterContext
from engine.adapters.protocol import Adapter
from engine.adapters.registry import adapter_class
from engine.encoders.encoder import Encoder, Usage
from engine.encoders.registry import Encoders
from engine.encoders.sharing import slot_key
from engine.events import Downloading, SlotEvent
from engine.residency.placer import Placer
from engine.serving.worker import Worker
from engine.settings.config import EncoderConfig
from engine.settings.effective import Effective
from engine.slot.slot import Slot
from engine.state import Download

AdapterFactory = Callable[[EncoderConfig, str, AdapterContext], Adapter]
"""Makes an adapter of an encoder's settings, the device that they name, and its context; loads nothing."""


class Factory:
    """Makes encoders for a registry, which publishes their events and answers their adapters' questions."""

    def __init__(
        self, encoders: Encoders, placer: Placer, clock: Callable[[], float], adapter: AdapterFactory | None = None
    ) -> None:
        self._encoders = encoders
        self._placer = placer
        self._clock = clock
        self._adapter = adapter or _adapter

    def __call__(self, settings: EncoderConfig, effective: Effective) -> Encoder:
        """Return a new encoder on weights of its own; loads nothing and starts no thread."""

        def publish(event: SlotEvent) -> None:
            self._encoders.publish(slot, event)

        def report_download(download: Download) -> None:
            publish(Downloading(slot.name, download))

        encoders = self._encoders
        context = AdapterContext(
            offline=lambda: encoders.config.hub.offline,
            report_download=report_download,
            view=lambda name: encoders.view(encoders.find(name)),
            run=lambda name, operation, used_by: encoders.submit(name, operation, used_by).result(),
        )
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


def _adapter(config: EncoderConfig, device: str, context: AdapterContext) -> Adapter:
    return adapter_class(config.kind, config.part)(config, device, context)

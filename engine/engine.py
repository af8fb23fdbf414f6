"""The engine: every configured encoder behind one door, for the tray, the HTTP endpoint and Python callers."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, Final, Self, TypeVar

from engine.adapters import adapter_class
from engine.adapters.protocol import Adapter
from engine.bundle import submit_bundle
from engine.config import Config, EncoderConfig
from engine.eagerness import Eagerness
from engine.encoder import Encoder
from engine.errors import Closed, QueueFull, UnknownEncoder
from engine.events import Downloading, Event, Events, SettingsApplied, StateChanged, TimerSet
from engine.idle_clock import check_keep_alive
from engine.memory import Reader, Reading, SystemReader
from engine.naming import named, resolved
from engine.offloader import Offloader
from engine.operations.axes import EncodeAxes
from engine.operations.bundle import Bundle, EncodeBundle
from engine.operations.classify import Classify
from engine.operations.dense import Embed
from engine.operations.image_text import EncodeImages
from engine.operations.multi import EncodeMulti
from engine.operations.plugin import Call
from engine.operations.rerank import Score
from engine.operations.sparse import EncodeSparse
from engine.operations.tag import Tag
from engine.policy import Decision, Step
from engine.proxies.axes import AxesProxy
from engine.proxies.classify import ClassifyProxy
from engine.proxies.dense import DenseProxy
from engine.proxies.image_text import ImageTextProxy
from engine.proxies.multi import MultiProxy
from engine.proxies.plugin import PluginProxy
from engine.proxies.rerank import RerankProxy
from engine.proxies.sparse import SparseProxy
from engine.proxies.tag import TagProxy
from engine.room import Room
from engine.serving import serve
from engine.sharing import Ladder, arranged, groups
from engine.slot import Slot
from engine.state import RESTING, EncoderView, Outcome
from engine.surroundings import Surroundings
from engine.terms import terms_of
from engine.usage import Usage
from engine.worker import Worker

_log = logging.getLogger(__name__)

_LONGEST_WAIT_FOR_THE_LAST_SECONDS: Final = 30.0

T = TypeVar("T")
AdapterFactory = Callable[[EncoderConfig, str, Surroundings], Adapter]


class Engine:
    """Holds the encoders; building one loads nothing and starts no thread.

    `start()` starts the offloader and loads what is to be loaded eagerly; without it encoders load at first use and
    stay. `close()` ends it all; `with Engine() as engine:` does both.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        adapter: AdapterFactory | None = None,
        reader: Reader | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.events = Events()
        self.clock = clock
        self._adapter = adapter or _adapter
        self._surroundings = Surroundings(
            offline=lambda: self._config.hub.offline,
            tell=lambda name, download: self.events.publish(Downloading(name, download)),
            look=self.view,
            ask=self.call,
        )
        self._reader = reader or SystemReader(clock)
        self._config = config or Config()
        ladder = Ladder(self._weights, self.apply_decision)
        self._room = Room(ladder, self._config.hardware, clock)
        self._offloader = Offloader(ladder, self._room, clock)
        self._lock = threading.Lock()
        self._running = self._closed = False
        self._retired: list[Encoder] = []
        self._encoders = arranged(self._config, {}, self._build)
        self.events.subscribe(self._on_event)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def config(self) -> Config:
        """The settings in force."""
        return self._config

    @property
    def ready(self) -> bool:
        """Whether requests are taken: from `start()` until `close()`; each encoder has its own state."""
        return self._running

    # Life

    def start(self) -> None:
        """Start the offloader, and start bringing up the encoders that are not lazy: to their device or into RAM."""
        self._running = True
        self._offloader.start()
        for encoder in self._encoders.values():
            encoder.bring_up(Eagerness.of(encoder.config, self._config.hardware))

    def apply(self, config: Config) -> None:
        """Put new settings in force: encoders that stay themselves keep their weights, others are replaced."""
        with self._lock:
            if self._closed:
                raise Closed("The engine is closed.")
            old, before = self._config, self._encoders
            self._room.configure(config.hardware)
            after = arranged(config, before, self._build)
            self._config, self._encoders = config, after
            gone = _without(before.values(), after.values())
            self._retired = [leaving for leaving in (*self._retired, *gone) if leaving.worker.at_work]
        for group in groups(gone):
            self._room.forget(group[0].slot.name)
            group[0].retire()
            for leaving in group:
                if leaving.worker.at_work and (heir := after.get(leaving.config.name)):
                    # Its weights may be all that there is room for.
                    with contextlib.suppress(QueueFull, Closed):
                        heir.worker.submit(partial(leaving.worker.wait, _LONGEST_WAIT_FOR_THE_LAST_SECONDS))
        if self._running:
            new = _without(after.values(), before.values())
            for name, now in after.items():
                eagerness = Eagerness.of(now.config, config.hardware)
                if now in new or eagerness is not Eagerness.of(before[name].config, old.hardware):
                    now.bring_up(eagerness)
        self._offloader.wake()
        self.events.publish(SettingsApplied())

    def refuse(self, timeout: float) -> None:
        """Take no more requests, and let those who wait go with Closed: at once, or after `timeout` seconds."""
        ends = time.monotonic() + timeout
        self._running = False
        encoders = (*self._encoders.values(), *self._retired)
        for encoder in encoders:
            encoder.worker.refuse()
        for encoder in encoders:
            encoder.worker.abandon(max(0.0, ends - time.monotonic()))

    def close(self, timeout: float = 5.0) -> bool:
        """Stop the offloader, refuse what waits, let what runs end for up to `timeout` seconds, drop all weights.

        Returns False when something was still at work at the end of that time.
        """
        ends = time.monotonic() + timeout
        clean = True
        with self._lock:
            self._running, self._closed = False, True
        self._offloader.stop(timeout)
        encoders = (*self._encoders.values(), *self._retired)
        for encoder in encoders:
            # All of them first: one may wait for another that is closed later.
            encoder.worker.refuse()
        for encoder in encoders:
            clean &= encoder.worker.close(max(0.0, ends - time.monotonic()))
        for encoder in encoders:
            clean &= encoder.slot.close(max(0.0, ends - time.monotonic()))
        self._room.close()
        self._reader.close()
        return clean

    # Use

    def dense(self, name: str | None = None) -> DenseProxy:
        """Return the lazy object for a dense encoder by name or alias, None for the default; raises UnknownEncoder."""
        return DenseProxy(self, self.resolve(name, *Embed.kinds, part=Embed.part))

    def image_text(self, name: str | None = None) -> ImageTextProxy:
        """Return the lazy object for a model of images and texts by name or alias, None for the default.

        Raises UnknownEncoder.
        """
        text, image = (self.resolve(name, *EncodeImages.kinds, part=part) for part in (Embed.part, EncodeImages.part))
        return ImageTextProxy(self, text, image)

    def sparse(self, name: str | None = None) -> SparseProxy:
        """Return the lazy object for a sparse encoder by name or alias, None for the default; raises UnknownEncoder."""
        return SparseProxy(self, self.resolve(name, *EncodeSparse.kinds))

    def multi(self, name: str | None = None) -> MultiProxy:
        """Return the lazy object for an encoder of kind multi by name or alias, None for the default; as `dense`."""
        return MultiProxy(self, self.resolve(name, *EncodeMulti.kinds))

    def rerank(self, name: str | None = None) -> RerankProxy:
        """Return the lazy object for a reranker by name or alias, None for the default; raises UnknownEncoder."""
        return RerankProxy(self, self.resolve(name, *Score.kinds))

    def classify(self, name: str | None = None) -> ClassifyProxy:
        """Return the lazy object for a classifier by name or alias, None for the default; raises UnknownEncoder."""
        return ClassifyProxy(self, self.resolve(name, *Classify.kinds))

    def axes(self, name: str | None = None) -> AxesProxy:
        """Return the lazy object for an encoder of kind axes by name or alias, None for the default; as `dense`."""
        return AxesProxy(self, self.resolve(name, *EncodeAxes.kinds))

    def tag(self, name: str | None = None) -> TagProxy:
        """Return the lazy object for a tagger by name or alias, None for the default; raises UnknownEncoder."""
        return TagProxy(self, self.resolve(name, *Tag.kinds))

    def plugin(self, name: str | None = None) -> PluginProxy:
        """Return the lazy object for a plug-in by name or alias, None for the default; raises UnknownEncoder."""
        return PluginProxy(self, self.resolve(name, *Call.kinds))

    def bundle(
        self,
        text: str,
        *,
        task: str | None = "query",
        top_k: int = 128,
        models: Mapping[str, str | None] | None = None,
        keep_alive: float | None = None,
    ) -> Bundle:
        """Return one text as dense vector, sparse vector and coordinates along axes, as far as these are configured.

        `models` names encoders by part (`dense`, `sparse`, `axes`) where the default ones shall not serve; `top_k`
        tokens are kept in the sparse vector; `task` and `keep_alive` are as in `DenseProxy.encode`, for all of them.
        Raises UnknownEncoder, InvalidInput, LoadFailed, Unavailable, QueueFull or Closed.
        """
        return self.submit_bundle(EncodeBundle(text, task, top_k, models or {}), keep_alive=keep_alive).result()

    def submit_bundle(
        self, asked: EncodeBundle, used_by: str | None = None, keep_alive: float | None = None
    ) -> Future[Bundle]:
        """Queue what a bundle asks of each encoder and return the future of the whole; raises as `submit`."""
        return submit_bundle(self, asked, used_by, keep_alive)

    def resolve(self, name: str | None, *kinds: str, part: str | None = None) -> str:
        """Return the name of the encoder that `name` means, or of its part where its kind has parts.

        None means the default one of the first of `kinds` that is configured. Raises UnknownEncoder when there is none,
        or when it is of another kind or another part.
        """
        return resolved(self._config, name, kinds, part)

    def submit(
        self,
        name: str,
        operation: Callable[[Any], T],
        used_by: str | None = None,
        keep_alive: float | None = None,
    ) -> Future[T]:
        """Queue `operation` for the encoder; it gets the adapter, under a lease, on the encoder's own thread.

        `keep_alive` (seconds; 0 = unload afterwards, negative = stay) takes the place of the idle timeout until
        another use names one or the encoder steps down; `max_keep_alive_seconds` bounds it.
        Raises UnknownEncoder, InvalidInput, QueueFull or Closed; the future raises LoadFailed, Unavailable or what it
        met.
        """

        check_keep_alive(keep_alive)

        def run(encoder: Encoder) -> T:
            with encoder.usage.counted(used_by):
                return serve(encoder.slot, self._room, operation, used_by, keep_alive)

        return self._queue(name, run)

    def call(
        self,
        name: str,
        operation: Callable[[Any], T],
        used_by: str | None = None,
        keep_alive: float | None = None,
    ) -> T:
        """Like `submit`, and wait for the result."""
        return self.submit(name, operation, used_by, keep_alive).result()

    # Looking

    def view(self, name: str, *, measured: bool = False) -> EncoderView:
        """Return a snapshot of one encoder by name or alias; raises UnknownEncoder.

        Its bytes are those after its last move; `measured` asks the system for those of this instant, which takes
        some milliseconds for a large one.
        """
        return self._look(self._find(name), measured)

    def views(self, *, measured: bool = False) -> tuple[EncoderView, ...]:
        """Return a snapshot of every encoder, in the order of the settings; `measured` as in `view`."""
        return tuple(self._look(encoder, measured) for encoder in self._encoders.values())

    def components(self, name: str) -> tuple[str, ...]:
        """Return the names of what `name` is made of: its parts, or itself. Raises UnknownEncoder."""
        return tuple(component.name for component in named(self._config, name))

    def read_memory(self, *, detailed: bool = False) -> Reading:
        """Return what the process, the system and the GPUs use now."""
        return self._reader.read(detailed=detailed)

    # Control

    def load(self, name: str) -> Outcome:
        """Bring an encoder to its device and wait for it; raises LoadFailed or Unavailable."""
        return self.submit_load(name).result()

    def retry(self, name: str) -> Outcome:
        """Load again now, whatever delay a failed load has left; raises LoadFailed or Unavailable."""
        return self.submit_load(name, retry=True).result()

    def submit_load(self, name: str, *, retry: bool = False) -> Future[Outcome]:
        """Queue a load, or a retry, and return its future; raises as `submit`."""

        def run(encoder: Encoder) -> Outcome:
            began = self.clock()
            (encoder.slot.retry if retry else encoder.slot.warm)()
            state = encoder.view(self._config.hardware).state
            return Outcome(encoder.config.name, "done", state, seconds=self.clock() - began)

        return self._queue(name, run)

    def offload(self, name: str) -> Outcome:
        """Take an encoder off its device now, unless it is in use or pinned."""
        return self._by_hand(self._find(name), Slot.offload)

    def unload(self, name: str) -> Outcome:
        """Drop an encoder's weights now, unless it is in use or pinned."""
        return self._by_hand(self._find(name), Slot.unload)

    def pin(self, name: str) -> Outcome:
        """Keep an encoder from stepping down until unpinned; loads nothing."""
        return self._pin(self._find(name), True)

    def unpin(self, name: str) -> Outcome:
        """Let an encoder step down again."""
        outcome = self._pin(self._find(name), False)
        self._offloader.wake()
        return outcome

    def offload_all(self) -> tuple[Outcome, ...]:
        """Take every encoder off its device, unless in use or pinned."""
        return tuple(self._by_hand(encoder, Slot.offload) for encoder in self._encoders.values())

    def unload_all(self) -> tuple[Outcome, ...]:
        """Drop every encoder's weights, unless in use or pinned."""
        return tuple(self._by_hand(encoder, Slot.unload) for encoder in self._encoders.values())

    def load_all(self) -> tuple[Outcome, ...]:
        """Bring every encoder to its device and wait; one that fails answers `refused`, its view says why."""
        waits = [(encoder, encoder.queue_quietly(Slot.warm)) for encoder in self._encoders.values()]
        return tuple(self._came_up(encoder, wait is not None and wait.result()) for encoder, wait in waits)

    def suspend(self, timeout: float = 3.0) -> None:
        """Take all weights off devices that lose them when the computer sleeps, pinned ones too.

        Waits up to `timeout` seconds for encoders in use; `resume` takes those down that were not free in time.
        """
        self._evacuate("the computer goes to sleep", timeout)

    def resume(self, timeout: float = 30.0) -> None:
        """Take down what slept on a device, so that the next use brings fresh copies there."""
        self._evacuate("the computer was asleep", timeout)

    def apply_decision(self, decision: Decision) -> None:
        """Do what the policy decided, if its evidence still holds."""
        encoder = self._encoders.get(decision.name)
        if encoder is None:
            return
        step = encoder.slot.offload if decision.step is Step.OFFLOAD else encoder.slot.unload
        step(if_unused_since=decision.if_unused_since, reason=decision.reason)

    # Within

    def _weights(self) -> tuple[EncoderView, ...]:
        hardware = self._config.hardware
        return tuple(encoder.view(hardware) for encoder in self._encoders.values() if encoder.leads)

    def _look(self, encoder: Encoder, measured: bool) -> EncoderView:
        return encoder.view(self._config.hardware, self._sharers(encoder), measured=measured)

    def _sharers(self, encoder: Encoder) -> tuple[Encoder, ...]:
        others = self._encoders.values()
        return tuple(o for o in others if o.slot is encoder.slot and o.config.name != encoder.config.name)

    def _by_hand(self, encoder: Encoder, step: Callable[..., Outcome]) -> Outcome:
        return replace(step(encoder.slot, reason="by hand"), name=encoder.config.name)

    def _pin(self, encoder: Encoder, pinned: bool) -> Outcome:
        with self._lock:
            encoder.usage.pinned = pinned
            holders = [other.config.name for other in self._sharers(encoder) if other.usage.pinned]
            outcome = encoder.slot.pin(pinned or bool(holders))
        reason = f"{', '.join(holders)} shares its weights and is pinned." if holders and not pinned else None
        return replace(outcome, name=encoder.config.name, reason=reason)

    def _evacuate(self, reason: str, timeout: float) -> None:
        ends = time.monotonic() + timeout
        encoders = (*self._encoders.values(), *self._retired)
        # Those that are idle first: one that is in use takes all the time there is.
        busy = [encoder for encoder in encoders if encoder.slot.evacuate(reason, 0.0).result == "busy"]
        for encoder in busy:
            encoder.slot.evacuate(reason, max(0.0, ends - time.monotonic()))

    def _came_up(self, encoder: Encoder, succeeded: bool) -> Outcome:
        view = encoder.view(self._config.hardware)
        reason = view.error.message if view.error and not succeeded else None
        return Outcome(view.name, "done" if succeeded else "refused", view.state, reason=reason)

    def _queue(self, name: str, call: Callable[[Encoder], T]) -> Future[T]:
        """Queue `call` for an encoder; one that the settings replace at this very moment gives way to the new one."""
        while True:
            encoder = self._find(name)
            try:
                return encoder.worker.submit(partial(call, encoder))
            except Closed:
                if self._find(name).worker is encoder.worker:
                    raise

    def _find(self, name: str) -> Encoder:
        encoders = self._encoders
        if name in encoders:
            return encoders[name]
        for encoder in encoders.values():
            if name in encoder.config.aliases:
                return encoder
        parts = " and ".join(component.name for component in named(self._config, name))
        raise UnknownEncoder(f"{name} has parts, each with weights of its own: {parts}.", next_step="Name one of them.")

    def _build(self, settings: EncoderConfig, device: str) -> Encoder:
        slot = Slot(
            settings.name,
            self._adapter(settings, device, self._surroundings),
            terms_of(settings, self._config.hardware),
            pinned=settings.pin,
            room=self._room,
            publish=self.events.publish,
            clock=self.clock,
        )
        return Encoder(settings, device, slot, Worker(settings.name), Usage(pinned=settings.pin))

    def _on_event(self, event: Event) -> None:
        if isinstance(event, StateChanged):
            because = f" ({event.reason})" if event.reason else ""
            _log.info("%s: %s -> %s%s", event.name, event.old, event.new, because)
        if isinstance(event, TimerSet) or (isinstance(event, StateChanged) and event.new in RESTING):
            self._offloader.wake()


def _adapter(config: EncoderConfig, device: str, surroundings: Surroundings) -> Adapter:
    return adapter_class(config.kind, config.part)(config, device, surroundings)


def _without(encoders: Iterable[Encoder], others: Iterable[Encoder]) -> list[Encoder]:
    """The encoders whose slot none of the others has."""
    slots = {other.slot for other in others}
    return [encoder for encoder in encoders if encoder.slot not in slots]

"""The engine: every configured encoder behind one door, for the tray, the HTTP endpoint and Python callers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, Final, Self, TypeVar

from engine.adapters.context import Surroundings
from engine.adapters.protocol import Adapter
from engine.adapters.registry import adapter_class
from engine.devices.readings import Reader, Reading, SystemReader
from engine.encoders import controls as by_hand
from engine.encoders.bundle import submit_bundle
from engine.encoders.encoder import Encoder
from engine.encoders.registry import Encoders
from engine.encoders.sharing import essence
from engine.encoders.usage import Usage
from engine.errors import Closed
from engine.events import Downloading, Event, Events, SettingsApplied, SettingsRefused, StateChanged, TimerSet
from engine.operations.bundle import Bundle, EncodeBundle
from engine.operations.operation import Answer, Operation
from engine.proxies import Proxies
from engine.residency.offloader import Offloader
from engine.residency.placer import Room
from engine.serving.execution import serve
from engine.serving.worker import Worker
from engine.settings.config import Config, EncoderConfig, Hardware
from engine.settings.eagerness import Eagerness
from engine.settings.effective import terms_of
from engine.settings.naming import named, resolved
from engine.slot.idle_clock import check_keep_alive
from engine.slot.slot import Slot
from engine.state import RESTING, Download, EncoderView, Outcome

_log = logging.getLogger(__name__)

_LONGEST_WAIT_FOR_THE_LAST_SECONDS: Final = 30.0

T = TypeVar("T")
AdapterFactory = Callable[[EncoderConfig, str, Surroundings], Adapter]


class Engine(Proxies):
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
            offline=lambda: self.config.hub.offline,
            look=self.view,
            ask=self.call,
        )
        self._reader = reader or SystemReader(clock)
        config = config or Config()
        self._encoders = Encoders(self._build)
        self._room = Room(self._encoders, config.hardware, clock)
        self._offloader = Offloader(self._encoders, self._room, clock)
        self._lock = threading.Lock()
        self._running = self._closed = False
        self._encoders.arrange(config)
        self.events.subscribe(self._on_event)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def config(self) -> Config:
        """The settings in force."""
        return self._encoders.config

    @property
    def ready(self) -> bool:
        """Whether requests are taken: from `start()` until `close()`; each encoder has its own state."""
        return self._running

    # Life

    def start(self) -> None:
        """Start the offloader, and start bringing up the encoders that are not lazy: to their device or into RAM."""
        self._running = True
        self._offloader.start()
        for encoder in self._encoders:
            encoder.bring_up(Eagerness.of(encoder.config, self.config.hardware))

    def apply(self, config: Config) -> None:
        """Put new settings in force: encoders that stay themselves keep their weights, others are replaced."""
        with self._lock:
            if self._closed:
                raise Closed("The engine is closed.")
            self._room.configure(config.hardware)
            forgotten, eager = self._encoders.arrange(config)
        for name in forgotten:
            self._room.forget(name)
        if self._running:
            for encoder, eagerness in eager:
                encoder.bring_up(eagerness)
        self._offloader.wake()
        self.events.publish(SettingsApplied())

    def refuse(self, timeout: float) -> None:
        """Take no more requests, and let those who wait go with Closed: at once, or after `timeout` seconds."""
        ends = time.monotonic() + timeout
        self._running = False
        encoders = self._encoders.at_work
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
        encoders = self._encoders.at_work
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
        return resolved(self.config, name, kinds, part)

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
                promise = self._encoders.promise(encoder, keep_alive)
                return serve(encoder.slot, self._room, operation, used_by, promise)

        return self._queue(name, run)

    def ask(
        self,
        name: str,
        operation: Operation[T],
        used_by: str | None = None,
        keep_alive: float | None = None,
    ) -> Future[Answer[T]]:
        """Like `submit`, for an operation; the answer says which weights gave it. One about no items loads nothing."""
        if not operation.size:
            view = self.view(name)
            nothing: Future[Answer[T]] = Future()
            nothing.set_result(Answer(operation.nothing(), view.name, view.revision))
            return nothing

        def answer(adapter: Any) -> Answer[T]:
            # Read here: a moment later the encoder may stand elsewhere, in another element type.
            return Answer(operation(adapter), name, adapter.revision)

        return self.submit(name, answer, used_by, keep_alive)

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
        return self._look(self._encoders.find(name), measured)

    def views(self, *, measured: bool = False) -> tuple[EncoderView, ...]:
        """Return a snapshot of every encoder, in the order of the settings; `measured` as in `view`."""
        return tuple(self._look(encoder, measured) for encoder in self._encoders)

    def components(self, name: str) -> tuple[str, ...]:
        """Return the names of what `name` is made of: its parts, or itself. Raises UnknownEncoder."""
        return tuple(component.name for component in named(self.config, name))

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
            state = encoder.view(self.config.hardware).state
            return Outcome(encoder.config.name, "done", state, seconds=self.clock() - began)

        return self._queue(name, run)

    def offload(self, name: str) -> Outcome:
        """Take an encoder off its device now, unless it is in use or pinned."""
        return by_hand.step_down(self._encoders, self._encoders.find(name), Slot.offload)

    def unload(self, name: str) -> Outcome:
        """Drop an encoder's weights now, unless it is in use or pinned."""
        return by_hand.step_down(self._encoders, self._encoders.find(name), Slot.unload)

    def pin(self, name: str) -> Outcome:
        """Keep an encoder from stepping down until unpinned; loads nothing."""
        with self._lock:
            return by_hand.pin(self._encoders.find(name))

    def unpin(self, name: str) -> Outcome:
        """Let an encoder step down again."""
        with self._lock:
            outcome = by_hand.unpin(self._encoders, self._encoders.find(name))
        self._offloader.wake()
        return outcome

    def offload_all(self) -> tuple[Outcome, ...]:
        """Take every encoder off its device, unless in use or pinned."""
        return tuple(by_hand.step_down(self._encoders, encoder, Slot.offload) for encoder in self._encoders)

    def unload_all(self) -> tuple[Outcome, ...]:
        """Drop every encoder's weights, unless in use or pinned."""
        return tuple(by_hand.step_down(self._encoders, encoder, Slot.unload) for encoder in self._encoders)

    def load_all(self) -> tuple[Outcome, ...]:
        """Bring every encoder to its device and wait; one that fails answers `refused`, its view says why."""
        return by_hand.warm_all(self._encoders)

    def suspend(self, timeout: float = 3.0) -> None:
        """Take all weights off devices that lose them when the computer sleeps, pinned ones too.

        Waits up to `timeout` seconds for encoders in use; `resume` takes those down that were not free in time.
        """
        self._evacuate("the computer goes to sleep", timeout)

    def resume(self, timeout: float = 30.0) -> None:
        """Take down what slept on a device, so that the next use brings fresh copies there."""
        self._evacuate("the computer was asleep", timeout)

    # Within

    def _look(self, encoder: Encoder, measured: bool) -> EncoderView:
        return encoder.view(self.config.hardware, self._encoders.sharers(encoder), measured=measured)

    def _evacuate(self, reason: str, timeout: float) -> None:
        ends = time.monotonic() + timeout
        encoders = self._encoders.at_work
        # Those that are idle first: one that is in use takes all the time there is.
        busy = [encoder for encoder in encoders if encoder.slot.evacuate(reason, 0.0).result == "busy"]
        for encoder in busy:
            encoder.slot.evacuate(reason, max(0.0, ends - time.monotonic()))

    def _queue(self, name: str, call: Callable[[Encoder], T]) -> Future[T]:
        """Queue `call` for an encoder; one that the settings replace at this very moment gives way to the new one."""
        while True:
            encoder = self._encoders.find(name)
            try:
                return encoder.worker.submit(partial(call, encoder))
            except Closed:
                if self._encoders.find(name).worker is encoder.worker:
                    raise

    def _build(self, settings: EncoderConfig, device: str, hardware: Hardware) -> Encoder:
        def tell(download: Download) -> None:
            self._publish(Downloading(slot.name, download))

        slot = Slot(
            settings.name,
            self._adapter(settings, device, replace(self._surroundings, tell=tell)),
            terms_of(settings, hardware),
            pinned=settings.pin,
            room=self._room,
            publish=self._publish,
            clock=self.clock,
        )
        usage = Usage(pinned=settings.pin)
        return Encoder(settings, device, slot, Worker(settings.name), usage, essence(settings, device))

    def _publish(self, event: Event) -> None:
        """Tell of one set of weights, once for each encoder that it serves."""
        if isinstance(event, SettingsApplied | SettingsRefused):
            self.events.publish(event)
            return
        names = [encoder.config.name for encoder in self._encoders if encoder.slot.name == event.name]
        for name in names or [event.name]:
            self.events.publish(replace(event, name=name))

    def _on_event(self, event: Event) -> None:
        if isinstance(event, StateChanged):
            because = f" ({event.reason})" if event.reason else ""
            _log.info("%s: %s -> %s%s", event.name, event.old, event.new, because)
        if isinstance(event, TimerSet) or (isinstance(event, StateChanged) and event.new in RESTING):
            self._offloader.wake()


def _adapter(config: EncoderConfig, device: str, surroundings: Surroundings) -> Adapter:
    return adapter_class(config.kind, config.part)(config, device, surroundings)

"""The engine: every configured encoder behind one door, for the tray, the HTTP endpoint and Python callers."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, Final, Self, TypeVar

from engine.adapters import adapter_class
from engine.adapters.protocol import Adapter
from engine.config import Config, EncoderConfig, Hardware
from engine.eagerness import Eagerness
from engine.encoder import Encoder
from engine.errors import Closed, QueueFull, UnknownEncoder
from engine.events import Event, Events, SettingsApplied, StateChanged, TimerSet
from engine.idle_clock import check_keep_alive
from engine.memory import Reader, Reading, SystemReader
from engine.offloader import Offloader
from engine.policy import Decision, Step
from engine.proxies import DenseProxy
from engine.room import Room
from engine.serving import serve
from engine.slot import Slot
from engine.state import RESTING, EncoderView, Outcome
from engine.terms import terms_of
from engine.worker import Worker

_log = logging.getLogger(__name__)

_LONGEST_NAME_SHOWN: Final = 80
"""Characters of an unknown name that an error repeats; a longer one is not a name."""

_LONGEST_WAIT_FOR_THE_LAST_SECONDS: Final = 30.0

T = TypeVar("T")
AdapterFactory = Callable[[EncoderConfig, str], Adapter]


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
        self._adapter = adapter or (lambda config, device: adapter_class(config.kind)(config, device))
        self._reader = reader or SystemReader(clock)
        self._config = config or Config()
        self._room = Room(self, self._config.hardware, clock)
        self._offloader = Offloader(self, self._room, clock)
        self._lock = threading.Lock()
        self._running = self._closed = False
        self._retired: list[Encoder] = []
        hardware = self._config.hardware
        self._encoders = {
            settings.name: self._build(settings, device, hardware) for settings, device in _in_force(self._config)
        }
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
            after = {}
            for settings, device in _in_force(config):
                kept = before.get(settings.name)
                if kept is None or not kept.serves(settings, device):
                    after[settings.name] = self._build(settings, device, config.hardware)
                else:
                    after[settings.name] = kept.under(settings, device, config.hardware)
            self._config, self._encoders = config, after
            gone = _without(before.values(), after.values())
            self._retired = [leaving for leaving in (*self._retired, *gone) if leaving.worker.at_work]
        for leaving in gone:
            self._room.forget(leaving.config.name)
            leaving.retire()
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
            clean &= encoder.worker.close(max(0.0, ends - time.monotonic()))
        for encoder in encoders:
            clean &= encoder.slot.close(max(0.0, ends - time.monotonic()))
        self._room.close()
        self._reader.close()
        return clean

    # Use

    def dense(self, name: str | None = None) -> DenseProxy:
        """Return the lazy object for a dense encoder by name or alias, None for the default; raises UnknownEncoder."""
        return DenseProxy(self, self.resolve(name, "dense"))

    def resolve(self, name: str | None, kind: str) -> str:
        """Return the name of the encoder that `name` means; None means the default one of that kind.

        Raises UnknownEncoder when there is none, or when it is of another kind.
        """
        if name is None:
            fitting = [encoder for encoder in self._config.encoders if encoder.kind == kind]
            if not fitting:
                raise UnknownEncoder(f"No {kind} encoder is configured.")
            return next((encoder.name for encoder in fitting if encoder.default), fitting[0].name)
        found = self._find(name).config
        if found.kind != kind:
            raise UnknownEncoder(f"The encoder {found.name} is of kind {found.kind}, not {kind}.")
        return found.name

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
        return self._find(name).view(self._config.hardware, measured=measured)

    def views(self, *, measured: bool = False) -> tuple[EncoderView, ...]:
        """Return a snapshot of every encoder, in the order of the settings; `measured` as in `view`."""
        hardware = self._config.hardware
        return tuple(encoder.view(hardware, measured=measured) for encoder in self._encoders.values())

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
        return self._find(name).slot.offload(reason="by hand")

    def unload(self, name: str) -> Outcome:
        """Drop an encoder's weights now, unless it is in use or pinned."""
        return self._find(name).slot.unload(reason="by hand")

    def pin(self, name: str) -> Outcome:
        """Keep an encoder from stepping down until unpinned; loads nothing."""
        return self._find(name).slot.pin(True)

    def unpin(self, name: str) -> Outcome:
        """Let an encoder step down again."""
        outcome = self._find(name).slot.pin(False)
        self._offloader.wake()
        return outcome

    def offload_all(self) -> tuple[Outcome, ...]:
        """Take every encoder off its device, unless in use or pinned."""
        return tuple(encoder.slot.offload(reason="by hand") for encoder in self._encoders.values())

    def unload_all(self) -> tuple[Outcome, ...]:
        """Drop every encoder's weights, unless in use or pinned."""
        return tuple(encoder.slot.unload(reason="by hand") for encoder in self._encoders.values())

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
        known = ", ".join(encoders) or "none"
        shown = repr(name) if len(name) <= _LONGEST_NAME_SHOWN else "of that name"
        raise UnknownEncoder(f"There is no encoder {shown}.", next_step=f"Configured are: {known}.")

    def _build(self, settings: EncoderConfig, device: str, hardware: Hardware) -> Encoder:
        slot = Slot(
            settings.name,
            self._adapter(settings, device),
            terms_of(settings, hardware),
            pinned=settings.pin,
            room=self._room,
            publish=self.events.publish,
            clock=self.clock,
        )
        return Encoder(settings, device, slot, Worker(settings.name))

    def _on_event(self, event: Event) -> None:
        if isinstance(event, StateChanged):
            because = f" ({event.reason})" if event.reason else ""
            _log.info("%s: %s -> %s%s", event.name, event.old, event.new, because)
        if isinstance(event, TimerSet) or (isinstance(event, StateChanged) and event.new in RESTING):
            self._offloader.wake()


def _in_force(config: Config) -> Iterator[tuple[EncoderConfig, str]]:
    """Each encoder's settings with what its adapter must know of `[hardware]`, and the device that it wishes for."""
    for settings in config.encoders:
        streams = config.hardware.stream_layers if settings.stream_layers is None else settings.stream_layers
        yield replace(settings, stream_layers=streams), settings.device or config.hardware.device


def _without(encoders: Iterable[Encoder], others: Iterable[Encoder]) -> list[Encoder]:
    """The encoders whose slot none of the others has."""
    slots = {other.slot for other in others}
    return [encoder for encoder in encoders if encoder.slot not in slots]

"""The engine in this process: it assembles encoders, placer and offloader, and hands each request to its encoder."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from enum import Enum, auto
from typing import Any, TypeVar

from engine.devices.readings import Reader, Reading, SystemReader
from engine.encoders import controls
from engine.encoders.bundle import submit_bundle
from engine.encoders.factory import AdapterFactory, Factory
from engine.encoders.registry import Encoders
from engine.errors import Closed
from engine.events import Event, Events, SettingsApplied, StateChanged, TimerSet
from engine.interface import EngineInterface
from engine.operations.bundle import Bundle, EncodeBundle
from engine.operations.operation import Answer, Operation
from engine.residency.offloader import Offloader
from engine.residency.placer import Placer
from engine.settings import naming
from engine.settings.config import Config
from engine.state import RESTING, EncoderView, Outcome

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Life(Enum):
    """The phases of an engine."""

    NEW = auto()
    """Built: encoders load at first use and stay."""
    RUNNING = auto()
    """Started: the offloader works, and requests are taken."""
    REFUSING = auto()
    """New requests are refused; those that run may end."""
    CLOSED = auto()
    """All weights are dropped, or about to be; no phase follows."""


class Engine(EngineInterface):
    """Holds the encoders; building one loads nothing and starts no thread.

    `start()` starts the offloader and loads the encoders that are not lazy; without it encoders load at first use and
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
        config = config or Config()
        self.events = Events()
        self.clock = clock
        self._life = Life.NEW
        self._lock = threading.Lock()
        self._reader = reader or SystemReader(clock)
        self._encoders = Encoders(self.events.publish)
        self._placer = Placer(self._encoders, config.hardware, clock)
        self._offloader = Offloader(self._encoders, self._placer, clock)
        self._factory = Factory(self._encoders, self._placer, clock, adapter)
        self._encoders.rearrange(config, self._factory)
        self.events.subscribe(self._on_event)

    @property
    def config(self) -> Config:
        return self._encoders.config

    @property
    def ready(self) -> bool:
        return self._life is Life.RUNNING

    # Life

    def start(self) -> None:
        with self._lock:
            self._refuse_when_closed()
            self._life = Life.RUNNING
        self._offloader.start()
        for encoder in self._encoders:
            encoder.bring_up()

    def apply(self, config: Config) -> None:
        with self._lock:
            self._refuse_when_closed()
            self._placer.configure(config.hardware)
            rearranged = self._encoders.rearrange(config, self._factory)
        for name in rearranged.forgotten:
            self._placer.forget(name)
        if self._life is Life.RUNNING:
            for encoder in rearranged.to_bring_up:
                encoder.bring_up()
        self._offloader.wake()
        self.events.publish(SettingsApplied())

    def stop_accepting(self, timeout: float) -> None:
        ends = time.monotonic() + timeout
        with self._lock:
            if self._life is not Life.CLOSED:
                self._life = Life.REFUSING
        encoders = self._encoders.at_work
        for encoder in encoders:
            encoder.worker.stop_accepting()
        for encoder in encoders:
            encoder.worker.abandon(max(0.0, ends - time.monotonic()))

    def close(self, timeout: float = 5.0) -> bool:
        ends = time.monotonic() + timeout
        clean = True
        with self._lock:
            self._life = Life.CLOSED
        self._offloader.stop(timeout)
        encoders = self._encoders.at_work
        for encoder in encoders:
            # All of them first: one may wait for another that is closed later.
            encoder.worker.stop_accepting()
        for encoder in encoders:
            clean &= encoder.worker.close(max(0.0, ends - time.monotonic()))
        for encoder in encoders:
            clean &= encoder.slot.close(max(0.0, ends - time.monotonic()))
        self._placer.close()
        self._reader.close()
        return clean

    def suspend(self, timeout: float = 3.0) -> None:
        controls.evacuate(self._encoders, "the computer goes to sleep", timeout)

    def resume(self, timeout: float = 30.0) -> None:
        controls.evacuate(self._encoders, "the computer was asleep", timeout)

    # Use

    def resolve(self, name: str | None, *kinds: str, part: str | None = None) -> str:
        return naming.resolve(self.config, name, kinds, part)

    def ask(
        self,
        model: str | None,
        operation: Operation[T],
        used_by: str | None = None,
        keep_alive: float | None = None,
    ) -> Future[Answer[T]]:
        name = self.resolve(model, *operation.kinds, part=operation.part)
        if not operation.size:
            nothing: Future[Answer[T]] = Future()
            nothing.set_result(Answer(operation.nothing(), name, self._encoders.find(name).slot.view().revision))
            return nothing

        def answer(adapter: Any) -> Answer[T]:
            # Under the lease: a moment later the weights may be elsewhere, in another element type.
            return Answer(operation(adapter), name, adapter.revision)

        return self.submit(name, answer, used_by, keep_alive)

    def submit_bundle(
        self, asked: EncodeBundle, used_by: str | None = None, keep_alive: float | None = None
    ) -> Future[Bundle]:
        return submit_bundle(self._encoders, asked, used_by, keep_alive)

    def submit(
        self,
        name: str,
        operation: Callable[[Any], T],
        used_by: str | None = None,
        keep_alive: float | None = None,
    ) -> Future[T]:
        """Queue a call of `operation` with the encoder's adapter, in this process alone; else as `ask`."""
        return self._encoders.submit(name, operation, used_by, keep_alive)

    def call(
        self,
        name: str,
        operation: Callable[[Any], T],
        used_by: str | None = None,
        keep_alive: float | None = None,
    ) -> T:
        """Call `operation` as `submit` does, and return its result."""
        return self.submit(name, operation, used_by, keep_alive).result()

    # Looking

    def view(self, name: str, *, measured: bool = False) -> EncoderView:
        return self._encoders.view(self._encoders.find(name), measured=measured)

    def views(self, *, measured: bool = False) -> tuple[EncoderView, ...]:
        return tuple(self._encoders.view(encoder, measured=measured) for encoder in self._encoders)

    def components(self, name: str) -> tuple[str, ...]:
        return tuple(component.name for component in naming.components_named(self.config, name))

    def read_memory(self, *, detailed: bool = False) -> Reading:
        return self._reader.read(detailed=detailed)

    # Control

    def submit_load(self, name: str, *, retry: bool = False) -> Future[Outcome]:
        return controls.submit_load(self._encoders, name, self.clock, retry=retry)

    def offload(self, name: str) -> Outcome:
        return controls.offload(self._encoders, self._encoders.find(name))

    def unload(self, name: str) -> Outcome:
        return controls.unload(self._encoders, self._encoders.find(name))

    def pin(self, name: str) -> Outcome:
        with self._lock:
            return controls.pin(self._encoders.find(name))

    def unpin(self, name: str) -> Outcome:
        with self._lock:
            outcome = controls.unpin(self._encoders, self._encoders.find(name))
        self._offloader.wake()
        return outcome

    def load_all(self) -> tuple[Outcome, ...]:
        return controls.load_all(self._encoders)

    def offload_all(self) -> tuple[Outcome, ...]:
        return tuple(controls.offload(self._encoders, encoder) for encoder in self._encoders)

    def unload_all(self) -> tuple[Outcome, ...]:
        return tuple(controls.unload(self._encoders, encoder) for encoder in self._encoders)

    # Within

    def _refuse_when_closed(self) -> None:
        if self._life is Life.CLOSED:
            raise Closed("The engine is closed.")

    def _on_event(self, event: Event) -> None:
        if isinstance(event, StateChanged) and event.new in RESTING:
            # A request that unloads when it ends (`keep_alive = 0`) writes two lines then, and not four.
            because = f" ({event.reason})" if event.reason else ""
            _log.info("%s: %s -> %s%s", event.name, event.old, event.new, because)
        if isinstance(event, TimerSet) or (isinstance(event, StateChanged) and event.new in RESTING):
            self._offloader.wake()

"""Hand-written stand-ins for what the engine is built on: an adapter, a clock, a reader and a place to wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from engine.adapters.context import DETACHED, AdapterContext
from engine.adapters.protocol import Loaded
from engine.devices.placement import Footprint, Needs, Placement
from engine.devices.readings import Reading
from engine.events import Event, StateChanged, TimerSet
from engine.settings.config import Config, EncoderConfig, Hardware
from engine.settings.effective import Timeouts
from engine.slot.slot import Slot
from engine.state import Download, SlotView, State

LIMIT = 5.0
"""Seconds after which a wait that should have ended counts as a hang."""
SIZE = 100
"""Bytes of a fake encoder's weights."""


class FakeClock:
    """Time that stands still until told, or jumps by `step` at every look."""

    def __init__(self, step: float = 0.0) -> None:
        self.now = 1000.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Gate:
    """Holds a call until opened, and says when the call is there."""

    def __init__(self) -> None:
        self._entered, self._opened = threading.Event(), threading.Event()

    def reached(self) -> None:
        assert self._entered.wait(LIMIT)

    def open(self) -> None:
        self._opened.set()

    def passed(self) -> None:
        self._entered.set()
        assert self._opened.wait(LIMIT)


class FakeEncoding:
    def __init__(self, vectors: Any) -> None:
        self.vectors = vectors
        self.tokens = 0


class FakeAdapter:
    """Keeps `weights` as the set of places where they are, fails as scripted, and records every call.

    The places are `device`, `ram` and, for weights whose pages are not in memory, `file`; there they rest when the
    device is "cpu", elsewhere in RAM.
    """

    def __init__(self, config: EncoderConfig | None = None, device: str = "gpu") -> None:
        self.config = config
        self.device = device
        """Where it wishes to be."""
        self.stands_on = device
        """Where its weights were read for."""
        self.least: int | None = None
        self.placements: list[Placement] = []
        """Every one that it came up in."""
        self.cannot_rest: str | None = None
        self.download: Download | None = None
        self.changed: str | None = None
        """What happened to the files since the last load."""
        self.repaired: str | None = None
        """What happened since the last load that may let another one end otherwise."""
        self.beside = 0
        """Bytes that stay in RAM on every rung, and count in no file and on no device."""
        self.blind = False
        """Whether the system does not say how much of the files is resident."""
        self.clinging = False
        """Whether something refers to what `unload` drops, although none of it is resident."""
        self.note: str | None = None
        """Why the device is not the one that was asked for."""
        self.kept: dict[str, int] = {}
        """Bytes that a move leaves in memory although it should not: call -> bytes, there until the next move."""
        self.dimension = 3
        self.max_tokens = 256
        self.weights: set[str] = set()
        self.calls: list[str] = []
        self.overlapped = False
        self._rest = "file" if device == "cpu" else "ram"
        self._left = 0
        self._busy = threading.Lock()
        self._gates: dict[str, list[Gate]] = {}
        self._failures: dict[str, list[BaseException]] = {}
        self.during: Callable[[str], None] = lambda call: None

    def hold(self, call: str) -> Gate:
        """Make the next `call` wait at the gate that is returned."""
        gate = Gate()
        self._gates.setdefault(call, []).append(gate)
        return gate

    def fail(self, call: str, *errors: BaseException) -> None:
        """Make the next calls of `call` raise, one error each, half-way through."""
        self._failures.setdefault(call, []).extend(errors)

    def probe(self) -> None:
        self._run("probe")

    def load(self, on: str | None = None) -> Loaded:
        self.stands_on = on or self.device
        self._rest = "file" if self.stands_on == "cpu" else "ram"
        self.repaired = None
        self._run("load", {self._rest})
        self.changed = None
        return Loaded(device=self.stands_on, revision="1", import_seconds=1.0, load_seconds=2.0, note=self.note)

    @property
    def revision(self) -> str | None:
        return "1"

    def needs(self) -> Needs:
        return Needs(self.device, SIZE, self.least)

    def fault_in(self) -> None:
        self._run("fault_in", {"ram"})

    def stale(self) -> str | None:
        self._look("stale")
        return self.changed if self.weights else None

    def mended(self) -> str | None:
        self._look("mended")
        return self.repaired

    def offload(self) -> Footprint:
        before = self._where()
        self._run("offload", {self._rest})
        return before

    def resume(self, placement: Placement) -> str | None:
        assert placement.device == self.stands_on
        self._run("resume", {"device"})
        self.placements.append(placement)
        return None if placement.streamed_in is None else f"Streamed in {placement.streamed_in} bytes."

    def unload(self) -> bool:
        self._run("unload", set())
        return not (self._left or self.clinging)

    def footprint(self) -> Footprint:
        self._look("footprint")
        return self._where()

    def encode(
        self, inputs: list[str], *, task: str | None = None, dimensions: int | None = None, truncate: bool = True
    ) -> FakeEncoding:
        self._run("encode")
        return FakeEncoding([[float(len(text))] for text in inputs])

    @property
    def moves(self) -> list[str]:
        """The calls that move weights."""
        return [call for call in self.calls if call in ("load", "offload", "resume", "unload")]

    def _where(self) -> Footprint:
        if not self.weights:
            return Footprint(0, self._left, 0)
        on_device, in_ram = (SIZE if place in self.weights else 0 for place in ("device", "ram"))
        if self.stands_on != "cpu":
            return Footprint(on_device + self._left, None if self.blind else in_ram + self.beside, SIZE)
        if "device" in self.weights:
            return Footprint(None if self.blind else on_device, self.beside, SIZE)
        return Footprint(0, None if self.blind else in_ram + self.beside + self._left, SIZE)

    def _run(self, call: str, after: set[str] | None = None) -> None:
        """Do what the slot does one at a time; `after` says where a move brings the weights."""
        alone = self._busy.acquire(blocking=False)
        self.overlapped |= not alone
        try:
            self._look(call)
        except BaseException:
            # What a failed copy leaves: a part at either end.
            self.weights |= after or set()
            raise
        else:
            if after is not None:
                self.weights, self._left = after, self.kept.get(call, 0)
        finally:
            if alone:
                self._busy.release()

    def _look(self, call: str) -> None:
        self.calls.append(call)
        if gates := self._gates.get(call):
            gates.pop(0).passed()
        self.during(call)
        if failures := self._failures.get(call):
            raise failures.pop(0)


class WatchedCondition(threading.Condition):
    """A condition that counts those who come to wait; one who is counted holds the lock until it waits."""

    def __init__(self) -> None:
        super().__init__()
        self._arrivals = threading.Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        self._arrivals.release()
        return super().wait(timeout)

    def expect(self, waiters: int) -> None:
        """Return once `waiters` more threads wait."""
        for _ in range(waiters):
            assert self._arrivals.acquire(timeout=LIMIT)
        with self:
            pass

    def expect_together(self, waiters: int) -> None:
        """Return once `waiters` threads wait at the same time; one that was woken and waits again counts once."""
        while True:
            with self:
                if len(self._waiters) >= waiters:  # type: ignore[attr-defined]
                    return
            assert self._arrivals.acquire(timeout=LIMIT)


class SlotBench:
    """One slot over a fake adapter, with what it published."""

    def __init__(
        self,
        *,
        idle: float = 30.0,
        unload: float = 900.0,
        pinned: bool = False,
        step: float = 0.0,
        device: str = "gpu",
    ) -> None:
        self.adapter = FakeAdapter(device=device)
        self.clock = FakeClock(step)
        self.events: list[Event] = []
        self.slot = Slot(
            "minilm",
            self.adapter,
            Timeouts(idle, unload),
            pinned=pinned,
            publish=lambda event: self.events.append(event),
            clock=self.clock,
        )
        self.waiting = WatchedCondition()
        self.slot._machine._changed = self.waiting

    def view(self, *, measured: bool = False) -> SlotView:
        return self.slot.view(measured=measured)

    def use(self, keep_alive: float | None = None) -> None:
        with self.slot.lease(keep_alive=keep_alive):
            pass

    @property
    def state(self) -> State:
        return self.view().state

    @property
    def path(self) -> list[State]:
        """Every state entered, in order."""
        return [event.new for event in self.events if isinstance(event, StateChanged)]

    @property
    def timers_set(self) -> int:
        """How often it was said that the encoder may step down at another time."""
        return sum(isinstance(event, TimerSet) for event in self.events)


def until(there: Callable[[], bool]) -> None:
    """Return once `there` holds."""
    ends = time.monotonic() + LIMIT
    while not there():
        assert time.monotonic() < ends


def started(call: Callable[[], Any]) -> Future[Any]:
    """Run `call` on a thread of its own."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - whoever waits for the future gets it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def failure(future: Future[Any]) -> BaseException | None:
    """What the call on the other thread raised, once it has ended."""
    return future.exception(LIMIT)


class FakeReader:
    """Reads the same figures every time."""

    def __init__(self) -> None:
        self.reads = 0
        self.closes = 0

    def read(self, *, detailed: bool = False) -> Reading:
        self.reads += 1
        return Reading(at=0.0, rss=1, ram_total=2, ram_available=1)

    def close(self) -> None:
        self.closes += 1


class Shelf:
    """Builds the adapters of an engine and keeps every one, by encoder name, newest last."""

    def __init__(self) -> None:
        self.built: dict[str, list[FakeAdapter]] = {}
        self.prepare: Callable[[FakeAdapter], None] = lambda adapter: None

    def __call__(self, config: EncoderConfig, device: str, context: AdapterContext = DETACHED) -> FakeAdapter:
        adapter = FakeAdapter(config, device)
        self.prepare(adapter)
        self.built.setdefault(config.name, []).append(adapter)
        return adapter

    def __getitem__(self, name: str) -> FakeAdapter:
        return self.built[name][-1]


def encoder(name: str, **settings: Any) -> EncoderConfig:
    return EncoderConfig(**{"name": name, "kind": "dense", "model": f"org/{name}", **settings})


def config(*encoders: EncoderConfig, **hardware: Any) -> Config:
    return Config(hardware=Hardware(**hardware), encoders=encoders or (encoder("one"), encoder("two")))

"""Streams that know what may run at once: every access to a card's memory that nothing orders is a race.

The fake card computes at once, in the order of the calls. A real one runs its streams beside each other, so here each
stream, and each thread of the host, has a vector clock: an access comes after another one only where streams, events or
the host made it wait. Memory belongs to the stream in which it was allocated, which may use it again, without waiting
for anybody else, from the moment it is freed: both count as a write in that stream.
"""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import fake_device
import pytest
import torch
from fake_device import BACKEND, Card, Event, OnCard, Stream
from torch.utils import _pytree as pytree

Clock = dict[object, int]
"""Stream or thread -> how many of its steps are known to be done."""


@dataclass(frozen=True)
class Access:
    """One step of a stream on a range of bytes of one storage."""

    what: str
    begin: int
    end: int
    writes: bool
    stream: Timed
    step: int

    def in_conflict_with(self, other: Access) -> bool:
        """Whether one of the two has to wait for the other."""
        return (self.writes or other.writes) and self.begin < other.end and other.begin < self.end

    def covered_by(self, other: Access) -> bool:
        """Whether whoever comes after `other` comes after this one, and is in conflict with this one only if so."""
        return other.writes and other.begin <= self.begin and self.end <= other.end


class Order:
    """What has been done on cards, and in `races` what could have been done in another order."""

    def __init__(self) -> None:
        """Know of nothing."""
        self.races: list[str] = []
        self._lock = threading.RLock()  # reentrant: the garbage collector frees memory at any time
        self._hosts: defaultdict[int, Clock] = defaultdict(dict)
        self._defaults: dict[int, Timed] = {}
        self._accesses: dict[int, list[Access]] = {}

    def current(self, device: Any = None) -> Timed:
        """Return the stream that this thread is in; outside of all the card's own, which all threads share."""
        within: Timed | None = getattr(BACKEND._current, "stream", None)
        with self._lock:
            index = fake_device.card_of(device).index
            return within or self._defaults.setdefault(index, Timed(f"{fake_device.NAME}:{index}"))

    def host(self) -> Clock:
        """What this thread of the host knows to be done."""
        return self._hosts[threading.get_ident()]

    def allocated(self, held: Any) -> None:
        """Note memory that was taken just now."""
        with self._lock:
            if (key := id(held)) in self._accesses:
                return
            self._accesses[key] = []
            stream = self.current(held.card.index)
            self._touch(key, "allocate", 0, held.size, True, stream)
            weakref.finalize(held, self._freed, key, held.size, stream)

    def ran(self, op: Any, args: Any, kwargs: Any) -> None:
        """Note what an op reads and writes; where the host waits for it, that too."""
        if any(back.alias_info is not None and not back.alias_info.is_write for back in op._schema.returns):
            return  # a view
        with self._lock:
            for argument, value in zip(op._schema.arguments, args, strict=False):
                writes = argument.alias_info is not None and argument.alias_info.is_write
                self._use(op, value, writes)
            self._use(op, kwargs, False)
            if _blocks_the_host(op, args, kwargs):
                join(self.host(), self.current().clock)

    def _use(self, op: Any, value: Any, writes: bool) -> None:
        for tensor in pytree.tree_leaves(value):
            if isinstance(tensor, OnCard) and tensor.numel():
                raw = tensor.raw
                begin = raw.storage_offset() * raw.element_size()
                steps = sum((size - 1) * stride for size, stride in zip(raw.size(), raw.stride(), strict=True))
                end = begin + (steps + 1) * raw.element_size()
                self._touch(id(tensor._held), str(op), begin, end, writes, self.current(tensor.card.index))

    def _freed(self, key: int, size: int, stream: Timed) -> None:
        with self._lock:
            self._touch(key, "free", 0, size, True, stream)
            del self._accesses[key]

    def _touch(self, key: int, what: str, begin: int, end: int, writes: bool, stream: Timed) -> None:
        join(stream.clock, self.host())
        stream.clock[stream] = step = stream.clock.get(stream, 0) + 1
        access = Access(what, begin, end, writes, stream, step)
        earlier = self._accesses.get(key, [])
        self.races += [
            f"{what} does not wait for {other.what}"
            for other in earlier
            if access.in_conflict_with(other) and stream.clock.get(other.stream, 0) < other.step
        ]
        self._accesses[key] = [other for other in earlier if not other.covered_by(access)] + [access]


class Moment(Event):
    """An event that knows what was done when it was recorded."""

    order: Order

    def __init__(self, enable_timing: bool = False, blocking: bool = False) -> None:
        """Take what torch.cuda.Event takes."""
        super().__init__(enable_timing, blocking)
        self.clock: Clock = {}

    def record(self, stream: Stream | None = None) -> None:
        """Happen when all that `stream` has been given is done."""
        self.clock = dict((stream or self.order.current()).clock)  # type: ignore[union-attr]

    def wait(self, stream: Stream | None = None) -> None:
        """Let a stream wait for it."""
        (stream or self.order.current()).wait_event(self)

    def synchronize(self) -> None:
        """Let the host wait for it."""
        join(self.order.host(), self.clock)


class Timed(Stream):
    """A stream that waits for nothing but what it is told to."""

    order: Order

    def __init__(self, device: str | int | torch.device | None = None, priority: int = 0) -> None:
        """Make a stream of a card."""
        super().__init__(device, priority)
        self.clock: Clock = {}

    def wait_stream(self, stream: Stream) -> None:
        """Begin nothing before all that `stream` has been given is done."""
        join(self.clock, stream.clock)  # type: ignore[attr-defined]

    def wait_event(self, event: Event) -> None:
        """Begin nothing before `event` has happened."""
        join(self.clock, event.clock)  # type: ignore[attr-defined]

    def record_event(self, event: Event | None = None) -> Event:
        """Return an event that happens when all that it has been given is done."""
        event = event or Moment()
        event.record(self)
        return event

    def synchronize(self) -> None:
        """Let the host wait for all that it has been given."""
        join(self.order.host(), self.clock)


def _blocks_the_host(op: Any, args: Any, kwargs: Any) -> bool:
    if op is torch.ops.aten.copy_.default:
        return not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
    if op is torch.ops.aten._to_copy.default:
        return not kwargs.get("non_blocking", False)
    return op is torch.ops.aten._local_scalar_dense.default


def join(clock: Clock, other: Clock) -> None:
    """Add to a clock what another one knows to be done."""
    for line, step in other.items():
        clock[line] = max(step, clock.get(line, 0))


def watched(monkeypatch: pytest.MonkeyPatch) -> Order:
    """Let the cards order nothing by themselves for one test."""
    order = Order()
    run, hold = fake_device._run, Card.hold

    def runs(op: Any, args: Any, kwargs: Any) -> Any:
        order.ran(op, args, kwargs)
        return run(op, args, kwargs)

    def holds(card: Card, raw: torch.Tensor) -> Any:
        held = hold(card, raw)
        order.allocated(held)
        return held

    for name, value in (("Stream", Timed), ("Event", Moment), ("current_stream", order.current)):
        monkeypatch.setattr(BACKEND, name, value, raising=False)
    for timed in (Timed, Moment):
        monkeypatch.setattr(timed, "order", order, raising=False)
    monkeypatch.setattr(fake_device, "_run", runs)
    monkeypatch.setattr(Card, "hold", holds)
    return order

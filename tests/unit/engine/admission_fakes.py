"""A placer of scripted answers, in place of the one that measures devices, and a slot that asks it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from engine_fakes import FakeAdapter, FakeClock, SlotBench, config

from engine.devices.placement import CPU, Needs, Placement
from engine.engine import Engine
from engine.errors import NoRoom
from engine.events import StateChanged
from engine.serving.execution import execute
from engine.settings.effective import Timeouts
from engine.slot.slot import Slot
from engine.state import EncoderView, State

GPU = "gpu"
WHOLE, STREAMED = Placement(GPU), Placement(GPU, 50)
ON_CPU = Placement(CPU, reason="It computes on the CPU, because gpu has no room for it.")


class ScriptedPlacer:
    """Offers the placements that it is given, then has no room; notes what a batch without memory asks of it."""

    def __init__(self, *offers: Placement) -> None:
        self.offers = offers
        self.asked: list[Needs] = []
        self.reclaims: list[str | None] = []
        self.cleared: list[tuple[str, str]] = []
        self.modes_left = 0
        self.inside = 0

    @contextmanager
    def exclusive(self, device: str) -> Iterator[None]:
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    def make_room(self, name: str, needs: Needs) -> Iterator[Placement]:
        self.asked.append(needs)
        yield from self.offers
        raise NoRoom("gpu has no room.", retry_in_seconds=1.0)

    def reclaim(self, name: str, device: str) -> str | None:
        return self.reclaims.pop(0) if self.reclaims else None

    def free_device(self, device: str, *, except_for: str) -> None:
        self.cleared.append((device, except_for))

    def use_less(self, name: str) -> bool:
        self.modes_left -= 1
        return self.modes_left >= 0


class Bench(SlotBench):
    def __init__(self, *offers: Placement, pinned: bool = False) -> None:
        super().__init__()
        self.placer = ScriptedPlacer(*offers)
        self.slot = Slot(
            "minilm",
            self.adapter,
            Timeouts(30.0, 900.0),
            pinned=pinned,
            admission=self.placer,
            publish=lambda event: self.events.append(event),
            clock=self.clock,
        )
        self.slot._machine._changed = self.waiting

    def request(self, operation: Any = lambda adapter: adapter.encode(["a"]).vectors) -> Any:
        return execute(self.slot, self.placer, operation, None, None)

    @property
    def reasons(self) -> list[str | None]:
        """Why the encoder came up as it did."""
        return [e.reason for e in self.events if isinstance(e, StateChanged) and e.new is State.ON_DEVICE]


def engine_with(*encoders: Any) -> tuple[Engine, dict[str, FakeAdapter]]:
    adapters: dict[str, FakeAdapter] = {}

    def build(settings: Any, device: str, context: Any) -> FakeAdapter:
        adapters[settings.name] = FakeAdapter(settings, "gpu" if device == "auto" else device)
        return adapters[settings.name]

    return Engine(config(*encoders, idle_timeout_seconds=0), adapter=build, clock=FakeClock()), adapters


def use(engine: Engine, name: str) -> EncoderView:
    engine.call(name, lambda adapter: adapter.encode(["a"]))
    return engine.view(name)

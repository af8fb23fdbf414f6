"""An engine over fake adapters, for the tests of the engine as a whole."""

from __future__ import annotations

import threading

from engine_fakes import LIMIT, FakeClock, FakeReader, Shelf, config

from engine import Config, Engine, State
from engine.events import Event


class Bench:
    """An engine over fake adapters that runs no thread until asked."""

    def __init__(self, settings: Config | None = None) -> None:
        self.shelf, self.clock, self.reader = Shelf(), FakeClock(), FakeReader()
        self.engine = Engine(settings or config(), adapter=self.shelf, reader=self.reader, clock=self.clock)
        self.events: list[Event] = []
        self._settled = threading.Condition()
        self.engine.events.subscribe(self._on_event)

    def _on_event(self, event: Event) -> None:
        with self._settled:
            self.events.append(event)
            self._settled.notify_all()

    def until(self, name: str, state: State) -> None:
        """Return once the encoder has reached `state`."""
        with self._settled:
            assert self._settled.wait_for(lambda: self.engine.view(name).state is state, LIMIT)

    def use(self, name: str = "one", keep_alive: float | None = None) -> list[str]:
        return self.engine.call(name, lambda adapter: list(adapter.weights), keep_alive=keep_alive)

    def drain(self, *names: str) -> None:
        """Return once everything that was queued for these encoders until now is done."""
        for name in names:
            self.engine._encoders.find(name).worker.submit(lambda: None).result(LIMIT)

    @property
    def states(self) -> dict[str, State]:
        return {view.name: view.state for view in self.engine.views()}


def new_threads(before: set[threading.Thread]) -> set[str]:
    return {thread.name for thread in set(threading.enumerate()) - before}

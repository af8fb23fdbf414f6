"""The part that the proxies of every kind share."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from engine.operations.describe import Describe
from engine.operations.operation import Answer, Operation
from engine.state import EncoderView, Outcome

T = TypeVar("T")


class Caller(Protocol):
    """The engine, as a proxy sees it."""

    def view(self, name: str) -> EncoderView:
        """Return a snapshot of one encoder."""

    def ask(
        self,
        model: str | None,
        operation: Operation[T],
        used_by: str | None = None,
        keep_alive: float | None = None,
    ) -> Future[Answer[T]]:
        """Queue `operation` for the encoder and return the future of its answer."""

    def load(self, name: str) -> Outcome:
        """Bring an encoder to its device and wait for it."""


class Proxy:
    """A lazy object for one encoder."""

    def __init__(self, engine: Caller, name: str) -> None:
        self._engine = engine
        self._name = name

    def __repr__(self) -> str:
        view = self.peek()
        return f"<{type(self).__name__} {view.name}: {view.status}>"

    @property
    def loaded(self) -> bool:
        """Whether the weights are on their device now."""
        return self.peek().awake

    def peek(self) -> EncoderView:
        """Return a snapshot; it loads nothing and resets no clock."""
        return self._engine.view(self._name)

    def warm(self) -> None:
        """Bring the encoder to its device now; raises LoadFailed or Unavailable."""
        self._engine.load(self._name)

    def _fact(self, name: str) -> Any:
        """Return a fact about the model, which loads the encoder."""
        return self._run(Describe(name))

    def _run(self, operation: Operation[T], keep_alive: float | None = None) -> T:
        """Return the operation's result; one about no items loads nothing."""
        if not operation.size:
            return operation.nothing()
        return self._engine.ask(self._name, operation, keep_alive=keep_alive).result().value

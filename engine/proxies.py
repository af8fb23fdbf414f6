"""What Python callers hold: one lazy object per encoder, which loads at its first use and never before.

Building a proxy, `repr`, `loaded`, `peek()` and the pure maths (`similarity`, `nearest`) load nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from engine.errors import InvalidInput
from engine.state import EncoderView, Outcome

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

T = TypeVar("T")


class Caller(Protocol):
    """What a proxy needs of the engine."""

    def view(self, name: str) -> EncoderView:
        """Return a snapshot of one encoder."""

    def call(
        self,
        name: str,
        operation: Callable[[Any], T],
        used_by: str | None = None,
        keep_alive: float | None = None,
    ) -> T:
        """Run `operation` on the encoder's adapter under a lease and return its result."""

    def load(self, name: str) -> Outcome:
        """Bring an encoder to its device and wait for it."""


class Proxy:
    """The part that every kind shares."""

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


class DenseProxy(Proxy):
    """One vector per text."""

    @property
    def dimension(self) -> int:
        """Length of the vectors; asking loads the encoder."""
        return self._engine.call(self._name, lambda adapter: int(adapter.dimension))

    @property
    def max_tokens(self) -> int | None:
        """Tokens read of one text, the rest is cut off; asking loads the encoder."""
        limit: int | None = self._engine.call(self._name, lambda adapter: adapter.max_tokens)
        return limit

    def encode(
        self, texts: Sequence[str], *, dimensions: int | None = None, keep_alive: float | None = None
    ) -> NDArray[np.float32]:
        """Return the vectors of `texts`, float32 (n, d), normalised as the model says.

        `dimensions` keeps the leading ones and normalises again (Matryoshka). `keep_alive` seconds take the place of
        the idle timeout from now on: 0 unloads afterwards, negative stays. No texts give shape (0, 0) and load
        nothing. Raises InvalidInput, LoadFailed, Unavailable, QueueFull or Closed.
        """
        import numpy as np

        if isinstance(texts, str):
            raise InvalidInput("encode takes a list of texts, not one text.", next_step="Write encode([text]).")
        if not len(texts):
            return np.empty((0, 0), dtype=np.float32)
        inputs = list(texts)
        vectors: NDArray[np.float32] = self._engine.call(
            self._name,
            lambda adapter: adapter.encode(inputs, dimensions=dimensions).vectors,
            keep_alive=keep_alive,
        )
        return vectors

    @staticmethod
    def similarity(a: ArrayLike, b: ArrayLike) -> NDArray[np.float32]:
        """Return the cosines of every row of `a` (n, d) with every row of `b` (m, d): float32 (n, m)."""
        import numpy as np

        left, right = (np.atleast_2d(np.asarray(rows, dtype=np.float32)) for rows in (a, b))
        tiny = np.finfo(np.float32).tiny
        left = left / np.maximum(np.linalg.norm(left, axis=1, keepdims=True), tiny)
        right = right / np.maximum(np.linalg.norm(right, axis=1, keepdims=True), tiny)
        cosines: NDArray[np.float32] = left @ right.T
        return cosines

    @classmethod
    def nearest(cls, query: ArrayLike, vectors: ArrayLike, k: int = 10) -> list[tuple[int, float]]:
        """Return the `k` rows of `vectors` (m, d) nearest to `query` (d,): (row, cosine), best first."""
        import numpy as np

        cosines = cls.similarity(query, vectors)[0]
        order = np.argsort(-cosines, kind="stable")[: max(k, 0)]
        return [(int(row), float(cosines[row])) for row in order]

"""The proxy of dense encoders: one vector per text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.operations.dense import Embed
from engine.operations.unit import unit
from engine.proxies.proxy import Proxy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


class DenseProxy(Proxy):
    """One vector per text."""

    @property
    def dimension(self) -> int:
        """Length of the vectors; asking loads the encoder."""
        return int(self._fact("dimension"))

    @property
    def max_tokens(self) -> int | None:
        """Tokens read of one text, the rest is cut off; asking loads the encoder."""
        limit: int | None = self._fact("max_tokens")
        return limit

    def encode(
        self,
        texts: Sequence[str],
        *,
        task: str | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
        truncate: bool = True,
        keep_alive: float | None = None,
    ) -> NDArray[np.float32]:
        """Return the vectors of `texts`, float32 (n, d), as the model gives them.

        `task` is `query` or `passage`, for models with a prompt for each. `dimensions` keeps the leading ones and
        normalises again (Matryoshka). With `normalize` every vector has length 1, and one of zeros is InvalidInput;
        without `truncate` a text that is longer than the model reads is InvalidInput and not cut. `keep_alive` seconds
        take the place of the idle timeout from now on: 0 unloads afterwards, negative stays. No texts give shape (0, 0)
        and load nothing. Raises InvalidInput, LoadFailed, Unavailable, QueueFull or Closed.
        """
        operation = Embed(texts, task=task, dimensions=dimensions, truncate=truncate, normalize=normalize)
        return self._run(operation, keep_alive).vectors

    @staticmethod
    def similarity(a: ArrayLike, b: ArrayLike) -> NDArray[np.float32]:
        """Return the cosines of every row of `a` (n, d) with every row of `b` (m, d): float32 (n, m)."""
        import numpy as np

        left, right = (_rows(vectors) for vectors in (a, b))
        if not left.size or not right.size:
            return np.zeros((len(left), len(right)), dtype=np.float32)
        cosines: NDArray[np.float32] = unit(left) @ unit(right).T
        return cosines

    @classmethod
    def nearest(cls, query: ArrayLike, vectors: ArrayLike, k: int = 10) -> list[tuple[int, float]]:
        """Return the `k` rows of `vectors` (m, d) nearest to `query` (d,): (row, cosine), best first."""
        import numpy as np

        cosines = cls.similarity(query, vectors)[0]
        order = np.argsort(-cosines, kind="stable")[: max(k, 0)]
        return [(int(row), float(cosines[row])) for row in order]


def _rows(vectors: ArrayLike) -> NDArray[np.float32]:
    """The vectors as rows: one vector is one row, and none at all are no rows."""
    import numpy as np

    found: NDArray[np.float32] = np.asarray(vectors, dtype=np.float32)
    return found.reshape(0, 0) if found.shape == (0,) else np.atleast_2d(found)

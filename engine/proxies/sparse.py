"""The proxy of sparse encoders: the weighted tokens of each text."""

from __future__ import annotations

from collections.abc import Sequence

from engine.operations.sparse import EncodeSparse, SparseVector
from engine.proxies.proxy import Proxy


class SparseProxy(Proxy):
    """The weighted tokens of each text."""

    def encode(
        self,
        texts: Sequence[str],
        *,
        top_k: int = 128,
        task: str | None = None,
        truncate: bool = True,
        keep_alive: float | None = None,
    ) -> tuple[SparseVector, ...]:
        """Return the `top_k` heaviest tokens of each of `texts`, by falling weight.

        `task` is `query` or `passage`, for models that treat the two differently. `truncate` and `keep_alive` are as
        for dense encoders. No texts give no vectors and load nothing. Raises InvalidInput, LoadFailed, Unavailable,
        QueueFull or Closed.
        """
        return self._run(EncodeSparse(texts, task=task, top_k=top_k, truncate=truncate), keep_alive).vectors

    @staticmethod
    def dot(a: SparseVector, b: SparseVector) -> float:
        """Return the inner product: how well two texts match, pure maths.

        Source: Formal et al., "SPLADE", 2021, arXiv 2107.05720, section 3.
        """
        import numpy as np

        _, left, right = np.intersect1d(a.indices, b.indices, assume_unique=True, return_indices=True)
        return float(a.weights[left] @ b.weights[right])

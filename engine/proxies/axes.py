"""The proxy of axes: the coordinates of a text along directions that sentences give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.operations.axes import EncodeAxes, Signature
from engine.proxies.dense import DenseProxy
from engine.proxies.proxy import Proxy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


class AxesProxy(Proxy):
    """One coordinate per axis and text."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the axes, in the order of the coordinates; asking loads the encoder, and with it its base."""
        return tuple(self._fact("names"))

    def encode(
        self,
        texts: Sequence[str],
        *,
        task: str | None = None,
        truncate: bool = True,
        keep_alive: float | None = None,
    ) -> NDArray[np.float32]:
        """Return the cosines of `texts` with the anchor sentences, float32 (n, k), in the order of the axes.

        `task`, `truncate` and `keep_alive` are as in `DenseProxy.encode`, but anchors are read in the model's default
        task, and it is they that stay: the base encoder goes by its own idle timeout. No texts give shape (0, 0) and
        load nothing. Raises InvalidInput, LoadFailed, Unavailable, QueueFull or Closed.
        """
        return self._run(EncodeAxes(texts, task=task, truncate=truncate), keep_alive).vectors

    def signature(
        self, text: str, top_k: int = 5, *, truncate: bool = True, keep_alive: float | None = None
    ) -> Signature:
        """Return the `top_k` strongest axes of `text`: (name, cosine), the largest cosine first; raises as `encode`."""
        return self._run(EncodeAxes([text], top_k=top_k, truncate=truncate), keep_alive).signatures(top_k)[0]

    @staticmethod
    def similarity(a: ArrayLike, b: ArrayLike) -> NDArray[np.float32]:
        """Return the cosines of every row of `a` (n, k) with every row of `b` (m, k): float32 (n, m)."""
        return DenseProxy.similarity(a, b)

    @staticmethod
    def nearest(query: ArrayLike, vectors: ArrayLike, k: int = 10) -> list[tuple[int, float]]:
        """Return the `k` rows of `vectors` (m, k) nearest to `query` (k,): (row, cosine), best first."""
        return DenseProxy.nearest(query, vectors, k)

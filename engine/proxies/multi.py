"""The proxy of encoders that give one text several forms at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from engine.operations.multi import FORMS, EncodeMulti, MultiEncoding, maxsim, maxsims
from engine.proxies.proxy import Proxy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


class MultiProxy(Proxy):
    """One vector, weighted tokens and a vector per token, of each text and in one pass."""

    @property
    def dimension(self) -> int:
        """Length of the dense vectors; asking loads the encoder."""
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
        want: Collection[str] = FORMS,
        top_k: int | None = None,
        truncate: bool = True,
        keep_alive: float | None = None,
    ) -> MultiEncoding:
        """Return those of `dense`, `sparse` and `colbert` that are wanted; the others are not computed and None.

        `dense` is float32 (n, d); `sparse` a SparseVector per text, of the `top_k` heaviest tokens or of all;
        `colbert` per text float32 (tokens - 1, d), for `maxsim`. Without `truncate` a text that is longer than the
        model reads is InvalidInput and not cut. `keep_alive` seconds take the place of the idle
        timeout from now on: 0 unloads afterwards, negative stays. No texts load nothing. Raises InvalidInput,
        LoadFailed, Unavailable, QueueFull or Closed.
        """
        return self._run(EncodeMulti(texts, want=want, top_k=top_k, truncate=truncate), keep_alive)

    @staticmethod
    def maxsim(query: ArrayLike, document: ArrayLike) -> float:
        """Return the mean of the best match of each query vector (n, d) in a document (m, d): 1 at most."""
        return maxsim(query, document)

    @staticmethod
    def maxsims(query: ArrayLike, documents: Sequence[ArrayLike]) -> NDArray[np.float32]:
        """Return `maxsim` of one query with each document: float32, (len(documents),)."""
        return maxsims(query, documents)

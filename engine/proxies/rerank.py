"""The proxy of rerankers: the relevance of documents to a query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.operations.rerank import ReRank, Score, Splice, Spliced
from engine.proxies.proxy import Proxy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class RerankProxy(Proxy):
    """The relevance of documents to a query, as probabilities.

    Without `truncate` a document that is longer than the model reads with the query is InvalidInput and not cut. In
    each method `keep_alive` seconds take the place of the idle timeout from now on: 0 unloads afterwards, negative
    stays. No documents load nothing. Each raises InvalidInput, LoadFailed, Unavailable, QueueFull or Closed.
    """

    @property
    def max_tokens(self) -> int | None:
        """Tokens read of query and document together, the rest is cut off; asking loads the encoder."""
        limit: int | None = self._fact("max_tokens")
        return limit

    def score(
        self, query: str, documents: Sequence[str], *, truncate: bool = True, keep_alive: float | None = None
    ) -> NDArray[np.float32]:
        """Return the relevance of each document, float32 (n,), 0 to 1, in the order of the documents."""
        return self._run(Score(query, documents, truncate), keep_alive).scores

    def re_rank(
        self,
        query: str,
        documents: Sequence[str],
        k: int | None = None,
        *,
        truncate: bool = True,
        keep_alive: float | None = None,
    ) -> list[tuple[int, float]]:
        """Return the `k` most relevant documents, None = all: (index, relevance), best first, ties in their order."""
        found = self._run(ReRank(query, documents, k, truncate), keep_alive)
        return [(int(index), float(score)) for index, score in zip(found.indices, found.scores, strict=True)]

    def splice(
        self,
        query: str,
        fragments: Sequence[Sequence[str]],
        *,
        threshold: float = 0.5,
        min_kept: int = 2,
        truncate: bool = True,
        keep_alive: float | None = None,
    ) -> Spliced:
        """Return which fragments of each group are relevant, `threshold` or more, in their order.

        Of each group the `min_kept` most relevant are kept in any case; a smaller group is kept whole.
        """
        return self._run(Splice(query, fragments, threshold, min_kept, truncate), keep_alive)

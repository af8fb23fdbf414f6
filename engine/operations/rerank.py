"""The operations of rerankers: the relevance of documents to a query, the best of them, and those to keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from engine.errors import InvalidInput
from engine.operations.cut import NOTHING_CUT, Cut
from engine.operations.inputs import ITEMS, check_text, check_texts
from engine.operations.operation import Operation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class Scores:
    """The relevance of documents to a query, in the order of the documents."""

    scores: NDArray[np.float32]
    """(n,), the probability of relevance, 0 to 1; of a regression the number that the model gives."""
    raw: NDArray[np.float32]
    """(n,), the same as log-odds: the logit of a head with one, the difference of the two of a head with two."""
    tokens: int
    """Tokens that the model read."""
    cut: Cut = NOTHING_CUT


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best documents by falling relevance, equal ones in the order in which they came."""

    indices: NDArray[np.int64]
    """(k,), the index of each one among the documents."""
    scores: NDArray[np.float32]
    """(k,), as in `Scores`."""
    tokens: int
    cut: Cut = NOTHING_CUT


@dataclass(frozen=True, slots=True)
class Spliced:
    """The fragments that are kept of each group, and the relevance of every fragment."""

    kept: tuple[tuple[int, ...], ...]
    """Per group the indices of the kept fragments, rising."""
    scores: tuple[NDArray[np.float32], ...]
    """Per group (n,), as in `Scores`."""
    tokens: int
    cut: Cut = NOTHING_CUT


@dataclass(frozen=True, slots=True)
class Score(Operation[Scores]):
    """The relevance of each document to the query."""

    query: str
    documents: Sequence[str]
    truncate: bool = True
    """Whether a document that is longer than the model reads with the query is cut; else it is an error."""
    field: str = "documents"

    kinds: ClassVar[tuple[str, ...]] = ("rerank",)

    def __post_init__(self) -> None:
        check_text(self.query, "query")
        check_texts(self.documents, self.field)

    @property
    def size(self) -> int:
        """The number of documents."""
        return len(self.documents)

    def nothing(self) -> Scores:
        """Return scores of shape (0,)."""
        import numpy as np

        return Scores(np.empty(0, dtype=np.float32), np.empty(0, dtype=np.float32), 0)

    def _run(self, adapter: Any) -> Scores:
        scores: Scores = adapter.score(self.query, self.documents, truncate=self.truncate)
        return scores


@dataclass(frozen=True, slots=True)
class ReRank(Operation[Ranking]):
    """The documents by falling relevance to the query, the best `k` of them."""

    query: str
    documents: Sequence[str]
    k: int | None = None
    """Number of documents in the answer; None = all."""
    truncate: bool = True
    """As in `Score`."""
    field: str = "documents"

    kinds: ClassVar[tuple[str, ...]] = Score.kinds

    def __post_init__(self) -> None:
        Score(self.query, self.documents, field=self.field)
        if self.k is not None and (type(self.k) is not int or self.k < 1):
            raise InvalidInput("k must be a whole number, 1 or more.", param="k")

    @property
    def size(self) -> int:
        """The number of documents."""
        return len(self.documents)

    def nothing(self) -> Ranking:
        """Return a ranking of shape (0,)."""
        return ranked(Score(self.query, ()).nothing(), self.k)

    def _run(self, adapter: Any) -> Ranking:
        return ranked(Score(self.query, self.documents, self.truncate, ITEMS)(adapter), self.k)


@dataclass(frozen=True, slots=True)
class Splice(Operation[Spliced]):
    """The fragments of each group that are relevant to the query, in their order."""

    query: str
    fragments: Sequence[Sequence[str]]
    threshold: float = 0.5
    """The score from which on a fragment is kept, 0 to 1: a probability, or the number of a regression."""
    min_kept: int = 2
    """Least number of fragments kept of each group, the most relevant ones; a smaller group is kept whole."""
    truncate: bool = True
    """As in `Score`."""
    field: str = "fragments"

    kinds: ClassVar[tuple[str, ...]] = Score.kinds

    def __post_init__(self) -> None:
        check_text(self.query, "query")
        if isinstance(self.fragments, str) or not isinstance(self.fragments, Sequence):
            raise InvalidInput(f"{self.field} must be a list of lists of texts.", param=self.field)
        for index, group in enumerate(self.fragments):
            check_texts(group, f"{self.field}[{index}]")
        if type(self.threshold) not in (int, float) or not 0 <= self.threshold <= 1:
            raise InvalidInput("threshold must be a number from 0 to 1.", param="threshold")
        if type(self.min_kept) is not int or self.min_kept < 0:
            raise InvalidInput("min_kept must be a whole number, 0 or more.", param="min_kept")

    @property
    def size(self) -> int:
        """The number of fragments of all groups together."""
        return sum(map(len, self.fragments))

    def nothing(self) -> Spliced:
        """Return the groups, each empty."""
        return self._spliced(Score(self.query, ()).nothing())

    def _run(self, adapter: Any) -> Spliced:
        flat = [fragment for group in self.fragments for fragment in group]
        return self._spliced(Score(self.query, flat, self.truncate, ITEMS)(adapter))

    def _name_of(self, index: int) -> str:
        for number, group in enumerate(self.fragments):
            if index < len(group):
                return f"{self.field}[{number}][{index}]"
            index -= len(group)
        return self.field

    def _spliced(self, found: Scores) -> Spliced:
        import numpy as np

        ends = np.cumsum([len(group) for group in self.fragments], dtype=np.int64)
        groups = tuple(np.split(found.scores, ends)[:-1])
        kept = tuple(selected(group, self.threshold, self.min_kept) for group in groups)
        return Spliced(kept, groups, found.tokens, found.cut)


def ranked(found: Scores, k: int | None = None) -> Ranking:
    """Return the best `k` by falling log-odds, which still differ where probabilities are rounded to 1."""
    import numpy as np

    order = np.argsort(-found.raw, kind="stable")[:k]
    return Ranking(order.astype(np.int64), found.scores[order], found.tokens, found.cut)


def selected(scores: ArrayLike, threshold: float, min_kept: int) -> tuple[int, ...]:
    """Return the rising indices of the `scores` (n,) that reach `threshold`, and in any case of the `min_kept` best."""
    import numpy as np

    values = np.asarray(scores, dtype=np.float32)
    count = max(int(np.count_nonzero(values >= np.float32(threshold))), min_kept)
    return tuple(sorted(int(index) for index in np.argsort(-values, kind="stable")[:count]))

"""The operation of encoders that give one text several forms at once, and the comparison of token vectors.

Source: Chen et al., "M3-Embedding: Multi-Linguality, Multi-Functionality, Multi-Granularity Text Embeddings Through
Self-Knowledge Distillation", 2024, arXiv 2402.03216, section 3.2.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from engine.errors import InvalidInput
from engine.operations.cut import NOTHING_CUT, Cut
from engine.operations.inputs import check_count, check_texts
from engine.operations.operation import Operation
from engine.operations.sparse import SparseVector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

Form = Literal["dense", "sparse", "colbert"]

FORMS: Final[tuple[Form, ...]] = ("dense", "sparse", "colbert")
"""The forms of a text: one vector, weighted tokens, a vector per token."""


@dataclass(frozen=True, slots=True, eq=False)
class MultiEncoding:
    """The forms that were asked for, each in the order of the texts; None for one that was not."""

    dense: NDArray[np.float32] | None
    """(n, d), each of length 1."""
    sparse: tuple[SparseVector, ...] | None
    colbert: tuple[NDArray[np.float32], ...] | None
    """For each text (tokens - 1, d): a vector of length 1 for every token that the model read but the first."""
    tokens: int
    """Tokens that the model read, special ones included."""
    cut: Cut = NOTHING_CUT


@dataclass(frozen=True, slots=True)
class EncodeMulti(Operation[MultiEncoding]):
    """Any of the three forms of each text, in one pass through the model."""

    texts: Sequence[str]
    want: Collection[str] = FORMS
    """Which of `dense`, `sparse` and `colbert`; nothing else is computed."""
    top_k: int | None = None
    """Sparse: tokens kept of each text, the heaviest; None keeps all, as the paper does."""
    truncate: bool = True
    """As in `Embed`."""
    field: str = "texts"

    kinds: ClassVar[tuple[str, ...]] = ("multi",)

    def __post_init__(self) -> None:
        check_texts(self.texts, self.field)
        want: object = self.want
        if isinstance(want, str) or not isinstance(want, Collection) or not want or not all(w in FORMS for w in want):
            raise InvalidInput(f"want must be a list of some of: {', '.join(FORMS)}.", param="want")
        if self.top_k is not None:
            check_count(self.top_k, "top_k")

    @property
    def size(self) -> int:
        """The number of texts."""
        return len(self.texts)

    def nothing(self) -> MultiEncoding:
        """Return dense vectors of shape (0, 0) and nothing of the other forms."""
        import numpy as np

        return MultiEncoding(
            np.empty((0, 0), dtype=np.float32) if "dense" in self.want else None,
            () if "sparse" in self.want else None,
            () if "colbert" in self.want else None,
            0,
        )

    def _run(self, adapter: Any) -> MultiEncoding:
        encoding: MultiEncoding = adapter.encode_multi(
            self.texts, want=frozenset(self.want), top_k=self.top_k, truncate=self.truncate
        )
        return encoding


def maxsim(query: ArrayLike, document: ArrayLike) -> float:
    """Return the relevance of a document to a query by late interaction; pure maths that loads nothing.

    Of each row of `query` (n, d) the largest inner product with a row of `document` (m, d), and of these the mean. The
    rows are token vectors of length 1, so 1 is the most. Without rows on either side it is 0.
    """
    return float(maxsims(query, [document])[0])


def maxsims(query: ArrayLike, documents: Sequence[ArrayLike]) -> NDArray[np.float32]:
    """Return `maxsim` of one query with each document: float32, (len(documents),)."""
    import numpy as np

    left = np.asarray(query, dtype=np.float32)
    rights = [np.asarray(document, dtype=np.float32) for document in documents]
    scores = np.zeros(len(rights), dtype=np.float32)
    if not left.size:
        return scores
    for index, right in enumerate(rights):
        if right.size:
            scores[index] = (left @ right.T).max(axis=1).mean()
    return scores

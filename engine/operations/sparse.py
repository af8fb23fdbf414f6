"""The operation of encoders that weigh the tokens of a vocabulary for each text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from engine.operations.cut import NOTHING_CUT, Cut
from engine.operations.inputs import check_count, check_task, check_texts_or_ids
from engine.operations.operation import Operation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """The tokens that represent a text, and their weights: by falling weight, none twice, none of weight zero."""

    indices: NDArray[np.int32]
    """Token ids, (k,)."""
    weights: NDArray[np.float32]
    """(k,), each above zero."""
    tokens: tuple[str, ...]
    """The tokens as the vocabulary writes them, such as `##ing` or `▁the`."""

    def __len__(self) -> int:
        return len(self.tokens)

    def by_token(self, decimals: int = 4) -> dict[str, float]:
        """Return token -> weight by falling weight, rounded; what rounds to zero is left out.

        Of ids that are written alike each but the heaviest has its id behind it: `token [id]`.
        """
        import numpy as np

        weights: dict[str, float] = {}
        rounded = np.round(self.weights.astype(np.float64), decimals).tolist()
        for token, index, weight in zip(self.tokens, self.indices.tolist(), rounded, strict=True):
            if weight:
                weights[f"{token} [{index}]" if token in weights else token] = weight
        return weights


@dataclass(frozen=True, slots=True, eq=False)
class SparseEncoding:
    """The weighted tokens of texts, in their order, and how many tokens the model read for them."""

    vectors: tuple[SparseVector, ...]
    tokens: int
    cut: Cut = NOTHING_CUT


@dataclass(frozen=True, slots=True)
class EncodeSparse(Operation[SparseEncoding]):
    """The weighted tokens of each text, or of each list of the encoder's own token ids."""

    inputs: Sequence[str] | Sequence[Sequence[int]]
    task: str | None = None
    """`query` or `passage`, for models that treat the two differently; None is the model's default."""
    top_k: int = 128
    """Tokens kept of each text: the heaviest."""
    truncate: bool = True
    """As in `Embed`."""
    field: str = "texts"

    kinds: ClassVar[tuple[str, ...]] = ("sparse", "multi")

    def __post_init__(self) -> None:
        check_texts_or_ids(self.inputs, self.field)
        check_task(self.task)
        check_count(self.top_k, "top_k")

    @property
    def size(self) -> int:
        """The number of texts."""
        return len(self.inputs)

    def nothing(self) -> SparseEncoding:
        """Return no vectors."""
        return SparseEncoding((), 0)

    def _run(self, adapter: Any) -> SparseEncoding:
        encoding: SparseEncoding = adapter.encode_sparse(
            self.inputs, task=self.task, top_k=self.top_k, truncate=self.truncate
        )
        return encoding

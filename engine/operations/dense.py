"""The operation of encoders that make one vector per text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from engine.operations.cut import NOTHING_CUT, Cut
from engine.operations.inputs import check_count, check_flag, check_task, check_texts_or_ids
from engine.operations.operation import Operation
from engine.operations.unit import checked_unit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Encoding:
    """Vectors, float32 (n, d), in the order of the inputs, and the number of tokens that the model read."""

    vectors: NDArray[np.float32]
    tokens: int
    cut: Cut = NOTHING_CUT


@dataclass(frozen=True, slots=True)
class Embed(Operation[Encoding]):
    """One vector per text, or per list of the encoder's own token ids."""

    inputs: Sequence[str] | Sequence[Sequence[int]]
    task: str | None = None
    """`query` or `passage`, for models that were trained with a prompt for each; None is the model's default."""
    dimensions: int | None = None
    """Number of leading dimensions to keep and normalise again (Matryoshka)."""
    truncate: bool = True
    """Whether a text that is longer than the model reads is cut; else it is an error."""
    normalize: bool | None = None
    """Whether vectors have length 1, and one of zeros is an error; else they are as the model gives them."""
    field: str = "texts"

    kinds: ClassVar[tuple[str, ...]] = ("dense", "multi", "image_text")
    part: ClassVar[str | None] = "text"

    def __post_init__(self) -> None:
        check_texts_or_ids(self.inputs, self.field)
        check_task(self.task)
        if self.dimensions is not None:
            check_count(self.dimensions, "dimensions")
        if self.normalize is not None:
            check_flag(self.normalize, "normalize")

    @property
    def size(self) -> int:
        """The number of texts."""
        return len(self.inputs)

    def nothing(self) -> Encoding:
        """Return vectors of shape (0, 0)."""
        import numpy as np

        return Encoding(np.empty((0, 0), dtype=np.float32), 0)

    def _run(self, adapter: Any) -> Encoding:
        encoding: Encoding = adapter.encode(
            self.inputs, task=self.task, dimensions=self.dimensions, truncate=self.truncate
        )
        return replace(encoding, vectors=checked_unit(encoding.vectors)) if self.normalize else encoding

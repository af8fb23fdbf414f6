"""The operations of axes: the coordinates of a text along directions that sentences give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from engine.kinds import BASE_KINDS
from engine.operations.cut import NOTHING_CUT, Cut
from engine.operations.dense import Embed
from engine.operations.inputs import ITEMS, check_count, check_task, check_texts
from engine.operations.operation import Operation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Signature = tuple[tuple[str, float], ...]
"""The strongest axes of one text: (name, weight) by falling weight, which is its cosine with the anchor sentence."""


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """The coordinates of texts along axes."""

    vectors: NDArray[np.float32]
    """(n, k): the cosine of each text with each anchor sentence."""
    axes: tuple[str, ...]
    """Names of the k axes, in the order of the coordinates."""
    tokens: int
    """Tokens that the base encoder read."""
    cut: Cut = NOTHING_CUT

    def signatures(self, top_k: int = 5) -> tuple[Signature, ...]:
        """Return the `top_k` strongest axes of each text, of two that are equal the first."""
        import numpy as np

        order = np.argsort(-self.vectors, axis=1, kind="stable")[:, :top_k]
        return tuple(
            tuple((self.axes[axis], float(row[axis])) for axis in strongest)
            for row, strongest in zip(self.vectors, order.tolist(), strict=True)
        )


@dataclass(frozen=True, slots=True, eq=False)
class BaseVectors:
    """Vectors (n, d) of the base of axes, the revision that made them, and the number of tokens."""

    vectors: NDArray[np.float32]
    revision: str | None
    tokens: int
    cut: Cut = NOTHING_CUT


@dataclass(frozen=True, slots=True)
class EmbedInBase(Operation[BaseVectors]):
    """The question of axes to their base: vectors, and the revision of the weights that made them."""

    texts: Sequence[str]
    task: str | None = None
    truncate: bool = True
    """As in `Embed`."""
    field: str = "texts"

    kinds: ClassVar[tuple[str, ...]] = BASE_KINDS

    @property
    def size(self) -> int:
        """The number of texts."""
        return len(self.texts)

    def nothing(self) -> BaseVectors:
        """Return vectors of shape (0, 0) that nothing made."""
        return BaseVectors(Embed([]).nothing().vectors, None, 0)

    def _run(self, adapter: Any) -> BaseVectors:
        encoding = Embed(self.texts, task=self.task, truncate=self.truncate, field=ITEMS)(adapter)
        return BaseVectors(encoding.vectors, adapter.revision, encoding.tokens, encoding.cut)


@dataclass(frozen=True, slots=True)
class EncodeAxes(Operation[Projection]):
    """The cosines of each text with the anchor sentence of each axis."""

    texts: Sequence[str]
    task: str | None = None
    """As in `Embed`, for the texts; anchors are read in the model's default task."""
    top_k: int | None = None
    """Number of axes in each text's signature, None for no signatures."""
    truncate: bool = True
    """As in `Embed`."""
    field: str = "texts"
    known: BaseVectors | None = None
    """The base's vectors of the texts, if the caller has them already."""

    kinds: ClassVar[tuple[str, ...]] = ("axes",)

    def __post_init__(self) -> None:
        check_texts(self.texts, self.field)
        check_task(self.task)
        if self.top_k is not None:
            check_count(self.top_k, "top_k")

    @property
    def size(self) -> int:
        """The number of texts."""
        return len(self.texts)

    def nothing(self) -> Projection:
        """Return vectors of shape (0, 0) along no axes."""
        import numpy as np

        return Projection(np.empty((0, 0), dtype=np.float32), (), 0)

    def _run(self, adapter: Any) -> Projection:
        more = {} if self.known is None else {"known": self.known}
        projection: Projection = adapter.encode_axes(self.texts, task=self.task, truncate=self.truncate, **more)
        return projection

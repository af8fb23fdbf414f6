"""The operation of several encoders at once: one text in every form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from engine.errors import InvalidInput
from engine.operations.axes import EncodeAxes
from engine.operations.cut import NOTHING_CUT, Cut
from engine.operations.dense import Embed
from engine.operations.inputs import check_count, check_task, check_text
from engine.operations.operation import Operation
from engine.operations.sparse import EncodeSparse, SparseVector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PARTS: Final[Mapping[str, type[Operation[Any]]]] = {"dense": Embed, "sparse": EncodeSparse, "axes": EncodeAxes}
"""The parts of a bundle, and for each the operation whose encoders make it."""


@dataclass(frozen=True, slots=True)
class EncodeBundle:
    """A text, and the encoders of its parts; checked when it is made."""

    text: str
    task: str | None = "query"
    """`query` or `passage`, for models that treat the two differently; None is each model's default."""
    top_k: int = 128
    """Tokens kept in the sparse vector: the heaviest."""
    models: Mapping[str, str | None] = field(default_factory=dict)
    """Part -> encoder; for a part that is not named, or named None, the default one serves, if there is one."""
    truncate: bool = True
    """Whether a text that is longer than one of the models reads is cut; else it is an error."""

    def __post_init__(self) -> None:
        check_text(self.text, "text")
        check_task(self.task)
        check_count(self.top_k, "top_k")
        if any(part not in PARTS for part in self.models):
            raise InvalidInput(f"models names encoders for: {', '.join(PARTS)}.", param="models")


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """One text in every form that an encoder is configured for, None for the others."""

    dense: NDArray[np.float32] | None
    """(d,), normalised as the model says."""
    sparse: SparseVector | None
    axes: NDArray[np.float32] | None
    """(k,): the cosine with the anchor sentence of each axis."""
    axis_names: tuple[str, ...]
    """Of the k coordinates; empty without axes."""
    encoders: Mapping[str, str]
    """Part -> the encoder that made it; without the parts that are None."""
    revisions: Mapping[str, str | None]
    """Part -> the revision of the weights that made it."""
    cut: Cut = NOTHING_CUT
    """The part of the text that was not read by the encoder that read least of it."""

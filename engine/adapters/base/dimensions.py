"""Shorter vectors from models that were trained for it.

Source: Kusupati et al., "Matryoshka Representation Learning", 2022, arXiv 2205.13147.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import InvalidInput
from engine.operations.unit import unit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def check_dimensions(dimensions: int | None, dimension: int, encoder: str) -> None:
    """Accept 1 to `dimension`, the length of the encoder's vectors, and None; raises InvalidInput."""
    if dimensions is not None and not 1 <= dimensions <= dimension:
        raise InvalidInput(
            f"dimensions is {dimensions}, but {encoder} has {dimension}.",
            param="dimensions",
            next_step=f"Ask for 1 to {dimension}, or leave it out.",
        )


def truncated(vectors: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
    """Return the leading `dimensions` of each row, normalised to length 1: (n, dimensions); None keeps all of them."""
    return vectors if dimensions is None else unit(vectors[:, :dimensions])

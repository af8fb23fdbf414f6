"""Vectors of length 1, the one place that makes them of numpy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import InvalidInput
from engine.operations.inputs import ITEMS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


def unit(vectors: ArrayLike) -> NDArray[np.float32]:
    """Return each row of `vectors` (n, d) with length 1, float32; zeros stay zeros, and a row with infinity is NaN."""
    import numpy as np

    # The square of a small or large float32 is no float32.
    rows = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return (rows / np.where(lengths == 0, 1, lengths)).astype(np.float32)


def checked_unit(vectors: ArrayLike) -> NDArray[np.float32]:
    """Return `unit` of vectors of items; raises InvalidInput, which names the first item whose vector is zeros."""
    found = unit(vectors)
    for index, row in enumerate(found):
        if not row.any():
            raise InvalidInput(
                f"{ITEMS}[{index}] has a vector of zeros, which cannot be brought to length 1.",
                param=ITEMS,
                next_step="Leave it out: the model finds nothing in it that it can read.",
            )
    return found

"""From logits to probabilities of the same element type, without overflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


Floats = TypeVar("Floats", bound="NDArray[np.floating]")


def sigmoid(logits: Floats) -> Floats:
    """Return the probability of each of `logits` by itself."""
    import numpy as np

    small = np.exp(-np.abs(logits))
    probabilities: Floats = np.where(logits >= 0, logits.dtype.type(1), small) / (1 + small)
    return probabilities


def softmax(logits: Floats) -> Floats:
    """Return the probabilities of which those along the last axis of `logits` share 1."""
    import numpy as np

    # Infinite logits have no probabilities, and give NaN.
    with np.errstate(invalid="ignore"):
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        probabilities: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities

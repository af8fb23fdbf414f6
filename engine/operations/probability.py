"""From logits to probabilities, float32 both, without overflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probability that each of `logits` stands for by itself."""
    import numpy as np

    small = np.exp(-np.abs(logits))
    probabilities: NDArray[np.float32] = np.where(logits >= 0, np.float32(1), small) / (1 + small)
    return probabilities


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities of which those along the last axis of `logits` share 1."""
    import numpy as np

    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities

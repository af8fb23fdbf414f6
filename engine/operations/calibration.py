"""Calibration of the cosines between images and texts, with the scale that a model learned beside its towers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from engine.operations.probability import sigmoid, softmax

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

CLIP_FLOOR: Final = 0.2
"""Cosine under which CLIP sees no match; its unrelated pairs are around 0.1 to 0.2, matches around 0.25 to 0.35."""
_FLOOR_PROBABILITY: Final = 0.01
"""Where a sigmoid was learned, the floor is the cosine of this probability."""


def score_floor(logit_scale: float | None, logit_bias: float | None) -> float:
    """Return the cosine below which a match is noise; arguments as in `calibrated`."""
    if logit_scale is None or logit_bias is None:
        return CLIP_FLOOR
    logit = math.log(_FLOOR_PROBABILITY / (1 - _FLOOR_PROBABILITY))
    return max(-1.0, min(1.0, (logit - logit_bias) / math.exp(logit_scale)))


def calibrated(cosines: ArrayLike, logit_scale: float, logit_bias: float | None) -> NDArray[np.float32]:
    """Return probabilities, float32, of the shape of `cosines`.

    With a bias (SigLIP, arXiv:2303.15343) each is that of its own pair: sigmoid(exp(logit_scale) * cosine + bias).
    Without (CLIP, arXiv:2103.00020) no pair has one of its own, so the last axis holds the candidates among which one
    is right: softmax(exp(logit_scale) * cosine) over it. `logit_scale` is a natural logarithm, as checkpoints hold it.
    """
    import numpy as np

    logits = np.asarray(cosines, dtype=np.float64) * math.exp(logit_scale)
    if logit_bias is not None:
        return sigmoid(logits + logit_bias).astype(np.float32)
    return (softmax(logits) if logits.size else logits).astype(np.float32)

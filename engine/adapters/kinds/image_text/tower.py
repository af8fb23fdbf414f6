"""One tower of a model of images and texts, the same for both libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from engine.adapters.text.company import Company
    from engine.adapters.text.rows import Limit, Rows
    from engine.operations.images import Image

Features = Mapping[str, "torch.Tensor"]
"""Arguments of a tower, on the CPU."""


@dataclass(frozen=True, slots=True)
class Tower:
    """A module, and `run`: its vectors for features on its device, (n, d), not normalised."""

    module: Any
    run: Callable[[Features], torch.Tensor]
    facts: Mapping[str, Any]
    """`dimension`, `max_tokens`, `image_size`, `logit_scale` and `logit_bias`, as plain data; None = unknown."""


@dataclass(frozen=True, slots=True)
class TextTower(Tower):
    """`rows` reads texts as far as a limit, and `company` is how they come together in a batch."""

    rows: Callable[[Sequence[str], Limit], Rows]
    company: Company
    vocabulary: int | None = None
    """The number of token ids that the tower has vectors for; None = unknown."""


@dataclass(frozen=True, slots=True)
class ImageTower(Tower):
    """`read` returns the features of one image (8-bit RGB)."""

    read: Callable[[Image], Features]

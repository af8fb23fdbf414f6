"""One tower as the adapters run it, whichever library it is from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from engine.operations.images import Image

Features = Mapping[str, "torch.Tensor"]
"""What a tower is called with, on the CPU."""


@dataclass(frozen=True, slots=True)
class Tower:
    """A module, and what it gives for features on its device: (n, d), not normalised."""

    module: Any
    run: Callable[[Features], torch.Tensor]
    facts: Mapping[str, Any]
    """`dimension`, `max_tokens`, `image_size`, `logit_scale` and `logit_bias`, as plain data; None = unknown."""


@dataclass(frozen=True, slots=True)
class TextTower(Tower):
    """`read` gives the features of texts, and how many tokens of each are read; `truncate` is for very long ones."""

    read: Callable[[Sequence[str]], tuple[Features, list[int]]]
    truncate: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class ImageTower(Tower):
    """`read` gives the features of one image (8-bit RGB)."""

    read: Callable[[Image], Features]

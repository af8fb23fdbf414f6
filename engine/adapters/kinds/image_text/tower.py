"""One tower of a model of images and texts, the same for both libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

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
    """`read` returns the features of texts and the number of tokens of each; `truncate` cuts very long ones before."""

    read: Callable[[Sequence[str]], tuple[Features, list[int]]]
    truncate: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class ImageTower(Tower):
    """`read` returns the features of one image (8-bit RGB)."""

    read: Callable[[Image], Features]

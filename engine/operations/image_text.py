"""The operations of encoders with an image tower and a text tower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from engine.operations.dense import Embed, Encoding
from engine.operations.images import check_images
from engine.operations.operation import Operation


@dataclass(frozen=True, slots=True)
class EncodeImages(Operation[Encoding]):
    """One vector per image, each the bytes of a PNG, JPEG or the like; of what moves the first frame."""

    images: Sequence[bytes]
    field: str = "images"

    kinds: ClassVar[tuple[str, ...]] = ("image_text",)
    part: ClassVar[str | None] = "image"

    def __post_init__(self) -> None:
        check_images(self.images, self.field)

    @property
    def size(self) -> int:
        """The number of images."""
        return len(self.images)

    def nothing(self) -> Encoding:
        """Return vectors of shape (0, 0)."""
        import numpy as np

        return Encoding(np.empty((0, 0), dtype=np.float32), 0)

    def _run(self, adapter: Any) -> Encoding:
        encoding: Encoding = adapter.encode_images(self.images, self.field)
        return encoding


class EmbedForImages(Embed):
    """One vector per text, to compare with those of images; only encoders that read images too can do it."""

    kinds = EncodeImages.kinds

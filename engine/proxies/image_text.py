"""The proxy of encoders that read images and texts: two towers, each loaded by its own first use."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import Unavailable
from engine.operations.calibration import calibrated
from engine.operations.dense import Embed
from engine.operations.image_text import EncodeImages
from engine.operations.operation import Operation
from engine.proxies.proxy import Caller, Proxy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray


class TowerProxy(Proxy):
    """One tower: its weights, its rung and its pin are its own."""

    def vectors(self, operation: Operation[Any], keep_alive: float | None) -> NDArray[np.float32]:
        """Return the vectors of `operation`, float32 (n, d)."""
        found: NDArray[np.float32] = self._run(operation, keep_alive).vectors
        return found


class ImageTextProxy:
    """One vector per image and per text, of length 1, comparable by their cosine."""

    def __init__(self, engine: Caller, text: str, image: str) -> None:
        """Stand before the components `text` and `image` of one encoder."""
        self.text = TowerProxy(engine, text)
        self.image = TowerProxy(engine, image)
        self._engine = engine

    def __repr__(self) -> str:
        towers = ", ".join(f"{view.name}: {view.status}" for view in (self.text.peek(), self.image.peek()))
        return f"<{type(self).__name__} {towers}>"

    def encode_images(
        self, images: Sequence[bytes | os.PathLike[str]], *, keep_alive: float | None = None
    ) -> NDArray[np.float32]:
        """Return the vectors of `images`, float32 (n, d): the bytes of PNG, JPEG and the like, or paths of files.

        They are turned upright as their EXIF says; transparency is seen on white; of what moves the first frame
        counts. `keep_alive` is as for `DenseProxy.encode`, and holds for this tower. No images give shape (0, 0) and
        load nothing. Raises OSError, InvalidInput, LoadFailed, Unavailable, QueueFull or Closed.
        """
        return self.image.vectors(EncodeImages(_read(images)), keep_alive)

    def encode_texts(
        self, texts: Sequence[str], *, truncate: bool = True, keep_alive: float | None = None
    ) -> NDArray[np.float32]:
        """Return the vectors of `texts`, float32 (n, d); the image tower is not needed for that.

        Without `truncate` a text that is longer than the tower reads is InvalidInput and not cut.
        """
        return self.text.vectors(Embed(texts, truncate=truncate), keep_alive)

    def calibrate(self, cosines: ArrayLike) -> NDArray[np.float32]:
        """Return the probabilities of `cosines`, float32 of the same shape, by the scale that the model learned.

        SigLIP: sigmoid, each pair for itself. CLIP learned none: softmax over the last axis, whose entries compete, so
        that what is asked is which of them, not whether. It loads as `score_floor` does, and raises Unavailable where
        the checkpoint has no scale.
        """
        facts = self._facts()
        if facts["logit_scale"] is None:
            raise Unavailable(
                f"{self.text.peek().model} has no usable logit_scale, so nothing says what its cosines are worth.",
                next_step="Compare the cosines with score_floor instead.",
            )
        return calibrated(cosines, facts["logit_scale"], facts["logit_bias"])

    @property
    def score_floor(self) -> float:
        """The cosine below which a match is noise; asking loads the text tower unless one of both was loaded before."""
        return float(self._facts()["score_floor"])

    @property
    def dimension(self) -> int:
        """Length of the vectors; asking loads as `score_floor` does."""
        return int(self._facts()["dimension"])

    def _facts(self) -> Mapping[str, Any]:
        """The facts about the model from the last load of either tower; each has all of them."""
        for tower in (self.text, self.image):
            if "dimension" in (facts := tower.peek().metadata):
                return facts
        self.text.warm()
        return self.text.peek().metadata


def _read(images: Any) -> Any:
    if isinstance(images, str | bytes | bytearray) or not isinstance(images, Sequence):
        return images  # the operation refuses it in its own words
    return [Path(image).read_bytes() if isinstance(image, os.PathLike) else image for image in images]

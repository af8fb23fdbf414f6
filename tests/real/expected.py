"""What tests compare with, and how they start scripts of their own."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from running import ROOT


@dataclass(frozen=True)
class Reference:
    """What sentence-transformers says about the same texts with the same weights."""

    texts: list[str]
    vectors: NDArray[np.float32]
    ids: list[list[int]]
    bare_ids: list[list[int]]
    vocabulary: int
    weights: str

    def agrees(self, vectors: object, texts: list[str] | None = None) -> bool:
        """Whether each vector's cosine to the reference's is at least 0.9999."""
        rows = [self.texts.index(text) for text in texts or self.texts]
        found, wanted = np.asarray(vectors, dtype=np.float64), self.vectors[rows].astype(np.float64)
        if found.shape != wanted.shape:
            return False
        cosines = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
        return bool((cosines >= 0.9999).all())


def importing_root() -> dict[str, str]:
    """The environment of a script that imports the checkout."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}

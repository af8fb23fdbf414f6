"""Vectors of length 1, for every size that a float32 can have."""

from __future__ import annotations

import numpy as np
import pytest

from engine import InvalidInput
from engine.operations.dense import Embed, Encoding
from engine.operations.unit import unit


class Fixed:
    """Gives the same vectors whatever it is asked."""

    def __init__(self, vectors: object) -> None:
        self.vectors = np.asarray(vectors, dtype=np.float32)

    def encode(self, inputs: object, **options: object) -> Encoding:
        return Encoding(self.vectors, 3)


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-3, 1.0, 1e4, 1e30, 1e38])
def test_every_row_has_length_1_and_its_direction(scale: float, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(50, 300)).clip(-3, 3)
    found = unit((rows * scale).astype(np.float32))
    assert found.dtype == np.float32
    assert np.abs(np.linalg.norm(found.astype(np.float64), axis=1) - 1).max() < 1e-6
    assert np.abs(found - rows / np.linalg.norm(rows, axis=1, keepdims=True)).max() < 1e-6


def test_zeros_stay_zeros_and_no_rows_are_no_rows() -> None:
    assert not unit(np.zeros((2, 3), np.float32)).any()
    assert unit(np.empty((0, 0), np.float32)).shape == (0, 0)


def test_vectors_are_as_the_model_gives_them_unless_normalize_is_asked_for() -> None:
    for normalize in (None, False):
        np.testing.assert_array_equal(Embed(["a"], normalize=normalize)(Fixed([[3, 4]])).vectors, [[3, 4]])
    encoding = Embed(["a"], normalize=True)(Fixed([[3, 4]]))
    np.testing.assert_allclose(encoding.vectors, [[0.6, 0.8]], atol=1e-7)
    assert encoding.tokens == 3


def test_a_vector_of_zeros_has_no_length_1_and_its_item_is_named() -> None:
    adapter = Fixed([[1, 0], [0, 0], [0, 0]])
    with pytest.raises(InvalidInput, match=r"^words\[1\] has a vector of zeros") as refused:
        Embed(["a", "b", "c"], normalize=True, field="words")(adapter)
    assert refused.value.param == "words"
    assert not Embed(["a", "b", "c"])(adapter).vectors[1].any()


@pytest.mark.parametrize("value", [1, 0, "true", "false", []])
def test_normalize_is_true_or_false_or_nothing(value: object) -> None:
    with pytest.raises(InvalidInput, match=r"^normalize must be true or false\.") as refused:
        Embed(["a"], normalize=value)  # type: ignore[arg-type]
    assert refused.value.param == "normalize"

"""What can be asked of axes, and what its answers say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.errors import InvalidInput
from engine.operations.axes import BaseVectors, EmbedInBase, EncodeAxes, Projection
from engine.operations.dense import Encoding


class FakeAxes:
    def encode_axes(self, texts: list[str], *, task: str | None = None, truncate: bool = True) -> Projection:
        self.task = task
        return Projection(np.asarray([[0.1, 0.5, 0.2]] * len(texts), dtype=np.float32), ("a", "b", "c"), 7)


class FakeBase:
    revision = "3"

    def encode(
        self, inputs: list[str], *, task: str | None = None, dimensions: int | None = None, truncate: bool = True
    ) -> Encoding:
        assert dimensions is None
        return Encoding(np.full((len(inputs), 2), 1.0 if task else 2.0, dtype=np.float32), 5)


def projection(*rows: list[float]) -> Projection:
    names = tuple("abcdefg"[: len(rows[0])])
    return Projection(np.asarray(rows, dtype=np.float32), names, 0)


def test_texts_and_their_task_go_to_the_adapter() -> None:
    adapter = FakeAxes()
    assert EncodeAxes(["x", "y"], task="query")(adapter).vectors.shape == (2, 3)
    assert adapter.task == "query"


def test_a_signature_names_the_strongest_axes_first() -> None:
    [first, second] = projection([0.1, 0.5, -0.9], [0.3, 0.2, 0.25]).signatures(2)
    assert [name for name, _ in first] == ["b", "a"]
    assert [weight for _, weight in first] == pytest.approx([0.5, 0.1])
    assert [name for name, _ in second] == ["a", "c"]


def test_of_axes_that_are_equally_strong_the_first_leads() -> None:
    [signature] = projection([0.5, 0.7, 0.5, 0.7]).signatures()
    assert [name for name, _ in signature] == ["b", "d", "a", "c"]


def test_a_signature_has_no_more_axes_than_there_are() -> None:
    assert len(projection([0.1, 0.2]).signatures(99)[0]) == 2


def test_no_texts_are_no_vectors_and_no_signatures() -> None:
    operation = EncodeAxes([])
    assert operation.size == 0
    nothing = operation.nothing()
    assert (nothing.vectors.shape, nothing.axes) == ((0, 0), ())
    assert nothing.vectors.dtype == np.float32
    assert nothing.signatures(3) == ()


def test_the_base_says_which_weights_made_its_vectors() -> None:
    found = EmbedInBase(["x"], task="passage")(FakeBase())
    assert (found.revision, found.tokens, found.vectors.tolist()) == ("3", 5, [[1.0, 1.0]])
    assert EmbedInBase(["x", "y"]).size == 2
    nothing: BaseVectors = EmbedInBase([]).nothing()
    assert (nothing.vectors.shape, nothing.revision) == ((0, 0), None)


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"texts": "one text"}, "texts"),
        ({"texts": ["fine", "\ud800"]}, "texts"),
        ({"texts": [1]}, "texts"),
        ({"texts": ["x"], "task": "document"}, "task"),
        ({"texts": ["x"], "top_k": 0}, "top_k"),
        ({"texts": ["x"], "top_k": True}, "top_k"),
        ({"texts": ["x"], "top_k": 2.0}, "top_k"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(arguments: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        EncodeAxes(**arguments)
    assert refused.value.param == param

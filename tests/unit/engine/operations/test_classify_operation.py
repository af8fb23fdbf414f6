"""What classifiers are asked: their own labels for texts or pairs, and any labels through entailment."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from engine.errors import InvalidInput
from engine.operations.classify import Classification, Classify, Inputs, ZeroShot, entailment
from engine.operations.probability import softmax

LOGITS = {"warm": [3.0, 1.0, -1.0], "cold": [-2.0, 0.0, 1.0], "dry": [0.0, 4.0, 0.5]}


class FakeNli:
    """The last word of a pair's second text decides its logits."""

    def __init__(self, *labels: str) -> None:
        self.labels = labels or ("Entailment", "neutral", "contradiction")
        self.seen: list[Any] = []

    def classify(self, inputs: Inputs, truncate: bool = True) -> Classification:
        self.seen += inputs
        logits = np.asarray([LOGITS[str(pair[1]).split()[-1].strip(".")] for pair in inputs], dtype=np.float32)
        return Classification(self.labels, softmax(logits), logits, len(inputs))


def test_texts_and_pairs_go_to_the_model_as_they_are() -> None:
    adapter = FakeNli()
    found = Classify([("a", "warm"), ("b", "cold")])(adapter)
    assert adapter.seen == [("a", "warm"), ("b", "cold")]
    assert found.labels == ("Entailment", "neutral", "contradiction")
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-6)


def test_labels_share_a_probability_of_one() -> None:
    adapter = FakeNli()
    found = ZeroShot(["t", "u"], ["warm", "cold"], template="It is {}.")(adapter)
    assert adapter.seen == [("t", "It is warm."), ("t", "It is cold."), ("u", "It is warm."), ("u", "It is cold.")]
    share = np.exp(3) / (np.exp(3) + np.exp(-2))
    np.testing.assert_allclose(found.probabilities, [[share, 1 - share]] * 2, atol=1e-6)
    assert found.labels == ("warm", "cold")
    assert found.tokens == 4


@pytest.mark.parametrize("labels", [["warm", "cold"], ["warm"]])
def test_labels_by_themselves_are_weighed_against_their_contradiction(labels: list[str]) -> None:
    found = ZeroShot(["t"], labels, multi_label=len(labels) > 1)(FakeNli())
    expected = [1 / (1 + np.exp(LOGITS[label][2] - LOGITS[label][0])) for label in labels]
    np.testing.assert_allclose(found.probabilities, [expected], atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "places"),
    [
        (("entailment", "neutral", "contradiction"), (0, 2)),
        (("contradiction", "ENTAILMENT", "neutral"), (1, 0)),
        (("neutral", "entailment", "contradiction"), (1, 2)),
        (("entailment", "not_entailment"), (0, 1)),
        (("not_entailment", "Entailed"), (1, 0)),
    ],
)
def test_entailment_and_contradiction_are_found_by_name(labels: tuple[str, ...], places: tuple[int, int]) -> None:
    assert entailment(labels) == places


@pytest.mark.parametrize("labels", [("positive", "negative"), ("LABEL_0",), ("not_entailment", "other")])
def test_a_model_without_entailment_is_told_what_it_lacks(labels: Sequence[str]) -> None:
    adapter = FakeNli(*labels)
    with pytest.raises(InvalidInput, match="none of them is entailment") as caught:
        ZeroShot(["t"], ["warm"])(adapter)
    assert caught.value.next_step
    assert adapter.seen == []


@pytest.mark.parametrize(
    ("labels", "places"),
    [
        (("entailment", "entailment_weak", "contradiction"), (0, 2)),
        (("contradiction", "contradicts", "entailed"), (2, 0)),
    ],
)
def test_of_several_that_begin_alike_the_one_of_the_whole_name_counts(
    labels: tuple[str, ...], places: tuple[int, int]
) -> None:
    assert entailment(labels) == places


@pytest.mark.parametrize(
    "labels", [("entailment [0]", "entailment [1]", "x"), ("entailed", "contradicted", "contradicts")]
)
def test_labels_that_cannot_be_told_apart_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput, match="Several labels"):
        entailment(labels)


def test_a_regression_has_no_probabilities_for_zero_shot() -> None:
    class Regression(FakeNli):
        def classify(self, inputs: Inputs, truncate: bool = True) -> Classification:
            return dataclasses.replace(super().classify(inputs, truncate), probabilities=None)

    with pytest.raises(InvalidInput, match="regression"):
        ZeroShot(["t"], ["warm"])(Regression())


def test_nothing_to_classify_is_an_empty_result_of_the_right_shape() -> None:
    assert Classify([]).size == 0
    assert Classify([]).nothing().probabilities.shape == (0, 0)
    assert ZeroShot([], ["a", "b"]).size == 0
    assert ZeroShot([], ["a", "b"]).nothing().probabilities.shape == (0, 2)


def test_the_size_of_a_zero_shot_counts_what_the_model_reads() -> None:
    assert ZeroShot(["t", "u", "v"], ["a", "b"]).size == 6


@pytest.mark.parametrize(
    ("make", "param", "message"),
    [
        (lambda: Classify("a"), "inputs", "must be a list"),
        (lambda: Classify(None), "inputs", "must be a list"),  # type: ignore[arg-type]
        (lambda: Classify(["a", ("b", "c")]), "inputs", "mixes texts and pairs"),  # type: ignore[list-item]
        (lambda: Classify([("b", "c"), "ab"], field="pairs"), "pairs", "mixes texts and pairs"),  # type: ignore[list-item]
        (lambda: Classify([("a", "b", "c")]), "inputs", "not a pair"),  # type: ignore[list-item]
        (lambda: Classify([("a", 7)]), "inputs", r"inputs\[0\]\[1\]"),  # type: ignore[list-item]
        (lambda: Classify(["\ud800"]), "inputs", "UTF-8"),
        (lambda: Classify([7]), "inputs", "not a pair"),  # type: ignore[list-item]
        (lambda: ZeroShot(["a"], []), "labels", "at least one"),
        (lambda: ZeroShot(["a"], ["x", "x"]), "labels", "each another"),
        (lambda: ZeroShot("a", ["x"]), "texts", "must be a list"),
        (lambda: ZeroShot(["a"], ["x"], template="This."), "template", "no {}"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(make: Any, param: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        make()
    assert caught.value.param == param


def test_zero_shot_errors_name_the_callers_fields() -> None:
    with pytest.raises(InvalidInput, match=r"^candidates must be") as refused:
        ZeroShot(["a"], [], labels_field="candidates")
    assert refused.value.param == "candidates"
    with pytest.raises(InvalidInput, match=r"^hypothesis has no {}") as refused:
        ZeroShot(["a"], ["x"], "none", template_field="hypothesis")
    assert refused.value.param == "hypothesis"

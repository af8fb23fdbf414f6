"""The native route of classifiers, in front of an engine whose classifier is a fake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from http_fakes import Caller, FakeDense, caller_of

from engine import Engine, parse
from engine.adapters.context import DETACHED, AdapterContext
from engine.operations.classify import Classification, Inputs
from engine.operations.probability import softmax
from engine.settings.config import EncoderConfig


class FakeClassifier(FakeDense):
    """Gives everything the same logits; `seen` holds what it was asked, `made` every one that was built."""

    made: list[FakeClassifier]
    labels = ("entailment", "neutral", "contradiction")

    def __init__(self, config: EncoderConfig, device: str, context: AdapterContext = DETACHED) -> None:
        super().__init__(config, device, context)
        self.seen: list[Any] = []
        self.made.append(self)
        self.name = config.name
        if config.name == "moods":
            self.labels = ("happy", "so-so", "sad")

    def classify(self, inputs: Inputs, truncate: bool = True) -> Classification:
        self.seen += inputs
        logits = np.asarray([[1.0, 1.0, 1.0]] * len(inputs), dtype=np.float32)
        return Classification(self.labels, None if self.name == "stars" else softmax(logits), logits, 1)


@pytest.fixture
def caller() -> Iterator[Caller]:
    FakeClassifier.made = []
    settings = {
        "nli": {"kind": "classify", "model": "./nli"},
        "moods": {"kind": "classify", "model": "./moods"},
        "stars": {"kind": "classify", "model": "./stars"},
    }
    with Engine(parse({"encoders": settings}), adapter=FakeClassifier) as engine:
        yield caller_of(engine)


def classify(caller: Caller, **body: Any) -> Any:
    return caller.send("POST", "/encode/classify", json=body)


def test_pairs_and_texts_get_the_models_own_labels(caller: Caller) -> None:
    third = pytest.approx(1 / 3)
    row = {"entailment": third, "neutral": third, "contradiction": third}
    answer = classify(caller, pairs=[["a", "b"], ["c", "d"]])
    assert answer.json() == {"labels": [row, row], "model": "nli", "revision": "7", "truncated": 0}
    assert classify(caller, texts=["a"]).json()["labels"] == [row]
    assert FakeClassifier.made[0].seen == [("a", "b"), ("c", "d"), "a"]


def test_the_numbers_of_a_regression_are_values_and_under_no_name_of_probabilities(caller: Caller) -> None:
    answer = classify(caller, texts=["a"], model="stars")
    values = {"entailment": 1.0, "neutral": 1.0, "contradiction": 1.0}
    assert answer.json() == {"values": [values], "truncated": 0, "model": "stars", "revision": "7"}
    refused = classify(caller, texts=["a"], candidate_labels=["warm"], model="stars")
    assert (refused.status_code, "regression" in refused.json()["detail"]) == (400, True)


def test_candidate_labels_make_it_zero_shot(caller: Caller) -> None:
    answer = classify(caller, texts=["t"], candidate_labels=["warm", "cold"], hypothesis_template="It is {}.")
    assert answer.json()["labels"] == [{"warm": 0.5, "cold": 0.5}]
    assert FakeClassifier.made[0].seen == [("t", "It is warm."), ("t", "It is cold.")]
    assert classify(caller, texts=["t"], candidate_labels=["warm"], multi_label=True).json()["labels"] == [
        {"warm": 0.5}
    ]


def test_a_model_without_entailment_cannot_do_zero_shot(caller: Caller) -> None:
    answer = classify(caller, texts=["t"], candidate_labels=["warm"], model="moods")
    assert answer.status_code == 400
    assert "happy, so-so, sad" in answer.json()["detail"]
    assert answer.json()["next_step"]


@pytest.mark.parametrize("body", [{}, {"texts": ["a"], "pairs": [["a", "b"]]}, {"texts": None, "pairs": None}])
def test_both_or_neither_of_pairs_and_texts_is_422(caller: Caller, body: dict[str, Any]) -> None:
    answer = classify(caller, **body)
    assert answer.status_code == 422
    assert answer.json()["detail"] == "pairs: give either pairs or texts."


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"pairs": [["a", "b"]], "candidate_labels": ["x"]}, "candidate_labels: they go with texts, not with pairs."),
    ],
)
def test_a_body_of_another_shape_is_422_and_names_the_field(caller: Caller, body: Any, detail: str) -> None:
    answer = classify(caller, **body)
    assert (answer.status_code, answer.json()["detail"]) == (422, detail)


def test_labels_that_cannot_be_chosen_from_are_refused(caller: Caller) -> None:
    for labels in ([], ["x", "x"]):
        assert classify(caller, texts=["a"], candidate_labels=labels).status_code == 400
    assert classify(caller, texts=["a"], candidate_labels=["x"], hypothesis_template="none").status_code == 400


def test_the_items_of_a_zero_shot_are_its_texts_times_its_labels(caller: Caller) -> None:
    assert classify(caller, texts=["a"] * 1024, candidate_labels=["x", "y"]).status_code == 200
    refused = classify(caller, texts=["a"] * 1025, candidate_labels=["x", "y"])
    assert refused.status_code == 422
    assert refused.json()["detail"] == "texts x candidate_labels has 2050 items; the limit is 2048."


def test_errors_name_the_fields_as_the_body_does(caller: Caller) -> None:
    answer = classify(caller, texts=["a"], candidate_labels=["x", "x"])
    assert answer.json()["detail"].startswith("candidate_labels must be")
    answer = classify(caller, texts=["a"], candidate_labels=["x"], hypothesis_template="none")
    assert answer.json()["detail"].startswith("hypothesis_template has no {}")

"""The native routes of rerankers, in front of an engine whose reranker is a fake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from http_fakes import Caller, FakeDense, caller_of

from engine import Engine, parse
from engine.adapters.context import DETACHED, AdapterContext
from engine.operations.rerank import Scores
from engine.settings.config import EncoderConfig


class FakeReranker(FakeDense):
    """A document's score is its length in tenths; `made` holds every one that was built."""

    made: list[FakeReranker]

    def __init__(self, config: EncoderConfig, device: str, context: AdapterContext = DETACHED) -> None:
        super().__init__(config, device, context)
        self.made.append(self)

    def score(self, query: str, documents: Sequence[str], truncate: bool = True) -> Scores:
        scores = np.asarray([len(document) / 10 for document in documents], dtype=np.float32)
        return Scores(scores, scores, 1)


@pytest.fixture
def caller() -> Iterator[Caller]:
    FakeReranker.made = []
    settings = {
        "first": {"kind": "rerank", "model": "./first"},
    }
    with Engine(parse({"encoders": settings}), adapter=FakeReranker) as engine:
        yield caller_of(engine)


def rerank(caller: Caller, **body: Any) -> Any:
    return caller.send("POST", "/encode/rerank", json=body)


def splice(caller: Caller, **body: Any) -> Any:
    return caller.send("POST", "/encode/splice", json=body)


def test_scores_come_in_the_order_of_the_texts_with_model_and_revision(caller: Caller) -> None:
    answer = rerank(caller, query="q", texts=["aaa", "b", ""])
    assert answer.status_code == 200
    assert answer.json() == {"scores": [0.3, 0.1, 0.0], "model": "first", "revision": "7", "truncated": 0}


def test_fragments_are_kept_per_group_in_their_order(caller: Caller) -> None:
    answer = splice(caller, query="q", fragments=[["aaaaaaa", "b", "cccccc", "dd"], [], ["e"]])
    assert answer.json() == {
        "kept": [[0, 2], [], [0]],
        "scores": [[0.7, 0.1, 0.6, 0.2], [], [0.1]],
        "model": "first",
        "revision": "7",
        "truncated": 0,
    }
    assert splice(caller, query="q", fragments=[["a", "bb"]], threshold=0.2, min_kept=0).json()["kept"] == [[1]]


def test_groups_without_fragments_load_nothing(caller: Caller) -> None:
    assert splice(caller, query="q", fragments=[[], []]).json()["kept"] == [[], []]
    assert not any(adapter.there for adapter in FakeReranker.made)


def test_the_items_of_a_splice_are_the_fragments_of_all_groups(caller: Caller) -> None:
    assert splice(caller, query="q", fragments=[["a"] * 1024] * 2).status_code == 200
    assert splice(caller, query="q", fragments=[["a"] * 1024] * 2 + [["b"]]).status_code == 422


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"fragments": [["a"]], "threshold": "high"}, 422),
        ({"fragments": [["a"]], "threshold": 1.5}, 400),
        ({"fragments": [["a"]], "min_kept": -1}, 400),
    ],
)
def test_limits_of_another_kind_are_refused(caller: Caller, fields: dict[str, Any], status: int) -> None:
    answer = splice(caller, query="q", **fields)
    assert answer.status_code == status, answer.text
    assert any(name in answer.json()["detail"] for name in fields)


@pytest.mark.parametrize(
    "field", [{"threshold": True}, {"threshold": "0.5"}, {"min_kept": "1"}, {"min_kept": True}, {"min_kept": 1.0}]
)
def test_numbers_of_a_splice_are_numbers(caller: Caller, field: dict[str, Any]) -> None:
    answer = caller.send("POST", "/encode/splice", json={"query": "q", "fragments": [["a"]], **field})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(next(iter(field)))

"""What rerankers are asked: scores, the best documents, and which fragments of each group stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from engine.errors import InvalidInput
from engine.operations.probability import sigmoid
from engine.operations.rerank import ReRank, Score, Scores, Splice, ranked, selected


class FakeReranker:
    """A document is its own logit; the calls are kept."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []

    def score(self, query: str, documents: Sequence[str], truncate: bool = True) -> Scores:
        self.calls.append((query, list(documents)))
        raw = np.asarray([float(document) for document in documents], dtype=np.float32)
        return Scores(sigmoid(raw), raw, len(documents))


def test_documents_are_scored_in_their_order() -> None:
    found = Score("q", ["1", "-1", "0"])(FakeReranker())
    np.testing.assert_allclose(found.scores, [0.7310586, 0.26894143, 0.5], atol=1e-6)
    assert found.tokens == 3


def test_a_ranking_falls_and_equal_documents_stay_in_their_order() -> None:
    found = ReRank("q", ["0", "2", "0", "3", "2"])(FakeReranker())
    assert found.indices.tolist() == [3, 1, 4, 0, 2]
    assert found.indices.dtype == np.int64
    assert (np.diff(found.scores) <= 0).all()


def test_a_ranking_has_the_best_k_or_all_where_there_are_fewer() -> None:
    adapter = FakeReranker()
    assert ReRank("q", ["0", "2", "1"], k=2)(adapter).indices.tolist() == [1, 2]
    assert ReRank("q", ["0", "2", "1"], k=9)(adapter).indices.tolist() == [1, 2, 0]


def test_documents_whose_probabilities_round_to_one_are_ranked_by_their_logits() -> None:
    raw = np.asarray([20, 40, 30], dtype=np.float32)
    found = ranked(Scores(sigmoid(raw), raw, 0))
    assert found.scores.tolist() == [1, 1, 1]
    assert found.indices.tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("scores", "threshold", "min_kept", "kept"),
    [
        ([0.9, 0.1, 0.6, 0.2], 0.5, 2, (0, 2)),
        ([0.9, 0.1, 0.6, 0.7], 0.5, 2, (0, 2, 3)),
        ([0.1, 0.3, 0.2], 0.5, 2, (1, 2)),
        ([0.1, 0.9, 0.2], 0.5, 2, (1, 2)),
        ([0.1, 0.3, 0.2], 0.5, 0, ()),
        ([0.1], 0.5, 2, (0,)),
        ([], 0.5, 2, ()),
        ([0.2, 0.2, 0.2], 0.5, 2, (0, 1)),
        ([0.5, 0.49], 0.5, 0, (0,)),
        ([0.7, 0.69], 0.7, 0, (0,)),
        ([0.0, 1.0], 0.0, 0, (0, 1)),
        ([0.999, 1.0], 1.0, 0, (1,)),
    ],
)
def test_what_reaches_the_threshold_stays_and_the_best_fill_up(
    scores: list[float], threshold: float, min_kept: int, kept: tuple[int, ...]
) -> None:
    assert selected(scores, threshold, min_kept) == kept


def test_all_groups_are_scored_in_one_go_and_come_back_ragged() -> None:
    adapter = FakeReranker()
    found = Splice("q", [["1", "-2", "3"], [], ["-4"], ["-5", "-7", "-6"]])(adapter)
    assert adapter.calls == [("q", ["1", "-2", "3", "-4", "-5", "-7", "-6"])]
    assert found.kept == ((0, 2), (), (0,), (0, 2))
    assert [len(group) for group in found.scores] == [3, 0, 1, 3]
    np.testing.assert_allclose(found.scores[3], sigmoid(np.asarray([-5, -7, -6], dtype=np.float32)))
    assert found.tokens == 7


def test_nothing_to_score_is_an_empty_result_of_the_right_shape() -> None:
    assert Score("q", []).size == 0
    assert Score("q", []).nothing().scores.shape == (0,)
    assert ReRank("q", []).nothing().indices.shape == (0,)
    splice = Splice("q", [[], []])
    assert splice.size == 0
    assert splice.nothing().kept == ((), ())
    assert Splice("q", []).nothing().scores == ()


def test_the_size_counts_the_fragments_of_all_groups() -> None:
    assert Splice("q", [["a", "b"], [], ["c"]]).size == 3


@pytest.mark.parametrize(
    ("make", "param"),
    [
        (lambda: Score("\ud800", ["a"]), "query"),
        (lambda: Score(7, ["a"]), "query"),  # type: ignore[arg-type]
        (lambda: Score("q", "a"), "documents"),
        (lambda: Score("q", ["a", "\udfff"]), "documents"),
        (lambda: Score("q", [None], field="texts"), "texts"),  # type: ignore[list-item]
        (lambda: ReRank("q", ["a"], k=0), "k"),
        (lambda: ReRank("q", ["a"], k=True), "k"),
        (lambda: ReRank("q", [b"a"]), "documents"),  # type: ignore[list-item]
        (lambda: Splice("q", "ab"), "fragments"),
        (lambda: Splice("q", ["ab"]), "fragments[0]"),
        (lambda: Splice("q", [["a"], ["b", "\ud800"]]), "fragments[1]"),
        (lambda: Splice("q", [["a"]], threshold=1.01), "threshold"),
        (lambda: Splice("q", [["a"]], threshold=float("nan")), "threshold"),
        (lambda: Splice("q", [["a"]], threshold="0.5"), "threshold"),  # type: ignore[arg-type]
        (lambda: Splice("q", [["a"]], min_kept=-1), "min_kept"),
        (lambda: Splice("q", [["a"]], min_kept=1.5), "min_kept"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(make: Any, param: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        make()
    assert caught.value.param == param


def test_a_sigmoid_of_extreme_logits_is_exact_and_warns_of_nothing() -> None:
    found = sigmoid(np.asarray([-1000, -30, 0, 30, 1000], dtype=np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [0, 9.3576e-14, 0.5, 1, 1], rtol=1e-4)

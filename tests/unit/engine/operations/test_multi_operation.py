"""What can be asked of a multi encoder, and how token vectors are compared."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np
import pytest

from engine import InvalidInput, MultiEncoding, MultiProxy
from engine.operations.dense import Embed
from engine.operations.multi import EncodeMulti, maxsim, maxsims
from engine.operations.operation import Answer, Operation
from engine.operations.sparse import EncodeSparse

T = TypeVar("T")


class FakeMulti:
    """Tells what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], Collection[str], int | None]] = []

    def encode_multi(
        self, inputs: list[str], *, want: Collection[str], top_k: int | None, truncate: bool = True
    ) -> MultiEncoding:
        self.asked.append((inputs, want, top_k))
        return MultiEncoding(np.ones((len(inputs), 3), np.float32), None, None, 4)


class FakeCaller:
    """An engine with one encoder; `keep_alives` are what its calls said."""

    def __init__(self) -> None:
        self.adapter = FakeMulti()
        self.keep_alives: list[float | None] = []

    def call(
        self, name: str, operation: Callable[[Any], T], used_by: str | None = None, keep_alive: float | None = None
    ) -> T:
        self.keep_alives.append(keep_alive)
        return operation(self.adapter)

    def ask(
        self, name: str, operation: Operation[T], used_by: str | None = None, keep_alive: float | None = None
    ) -> Future[Answer[T]]:
        answer: Future[Answer[T]] = Future()
        answer.set_result(Answer(self.call(name, operation, used_by, keep_alive), name, None))
        return answer

    def view(self, name: str) -> Any:
        raise AssertionError("nobody looks")

    def load(self, name: str) -> Any:
        raise AssertionError("nobody loads")


@pytest.mark.parametrize("want", [["dense"], ("sparse", "colbert"), {"dense", "sparse", "colbert"}, ["dense", "dense"]])
def test_any_subset_that_is_not_empty_may_be_wanted(want: Collection[str]) -> None:
    adapter = FakeMulti()
    EncodeMulti(["a", ""], want=want, top_k=7)(adapter)
    assert adapter.asked == [(["a", ""], frozenset(want), 7)]


def test_all_forms_and_all_tokens_are_wanted_where_nothing_is_said() -> None:
    adapter = FakeMulti()
    EncodeMulti(["a"])(adapter)
    assert adapter.asked == [(["a"], {"dense", "sparse", "colbert"}, None)]


@pytest.mark.parametrize("want", [[], "dense", ["Dense"], ["dense", "lexical"], [["dense"]], None, 3, [None]])
def test_what_is_no_form_is_refused_with_the_choices(want: Any) -> None:
    with pytest.raises(InvalidInput, match="some of: dense, sparse, colbert") as refused:
        EncodeMulti(["a"], want=want)
    assert refused.value.param == "want"


@pytest.mark.parametrize("top_k", [0, -1, 1.5, True, "3"])
def test_top_k_is_a_count(top_k: Any) -> None:
    with pytest.raises(InvalidInput, match="top_k must be a whole number") as refused:
        EncodeMulti(["a"], top_k=top_k)
    assert refused.value.param == "top_k"


@pytest.mark.parametrize("texts", ["a text", ["fine", "\ud800"], ["fine", 3], None])
def test_what_are_no_texts_is_refused(texts: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        EncodeMulti(texts)
    assert refused.value.param == "texts"


def test_a_multi_encoder_also_serves_what_dense_and_sparse_ones_do() -> None:
    assert "multi" in Embed.kinds
    assert "multi" in EncodeSparse.kinds
    assert EncodeMulti.kinds == ("multi",)


def test_no_texts_ask_nobody_and_have_only_the_wanted_forms() -> None:
    caller = FakeCaller()
    proxy = MultiProxy(caller, "m3")
    found = proxy.encode([], keep_alive=0.0)
    assert found.dense is not None
    assert (found.dense.shape, found.dense.dtype, found.sparse, found.colbert, found.tokens) == (
        (0, 0), np.float32, (), (), 0,
    )  # fmt: skip
    found = proxy.encode([], want=["sparse"])
    assert (found.dense, found.sparse, found.colbert) == (None, (), None)
    assert caller.keep_alives == []


def test_the_proxy_passes_on_what_is_wanted_and_its_keep_alive() -> None:
    caller = FakeCaller()
    found = MultiProxy(caller, "m3").encode(["a"], want=("dense",), top_k=5, keep_alive=-1.0)
    assert found.tokens == 4
    assert caller.adapter.asked == [(["a"], frozenset({"dense"}), 5)]
    assert caller.keep_alives == [-1.0]


def test_maxsim_is_the_mean_over_query_tokens_of_the_best_document_token() -> None:
    query = [[1.0, 0.0], [0.0, 1.0]]
    document = [[0.6, 0.8], [1.0, 0.0], [0.0, -1.0]]
    assert maxsim(query, document) == pytest.approx((1.0 + 0.8) / 2)
    assert maxsim(document, query) == pytest.approx((0.8 + 1.0 + 0.0) / 3), "it is not symmetric"
    assert MultiProxy.maxsim(query, document) == maxsim(query, document)


def test_many_documents_of_any_length_are_compared_with_one_query() -> None:
    random = np.random.default_rng(0)
    query = random.standard_normal((4, 8))
    documents = [random.standard_normal((count, 8)) for count in (1, 5, 3)]
    scores = MultiProxy.maxsims(query, documents)
    assert (scores.shape, scores.dtype) == ((3,), np.float32)
    slowly = [np.mean([max(float(q @ d) for d in document) for q in query]) for document in documents]
    np.testing.assert_allclose(scores, slowly, rtol=1e-6)


def test_without_token_vectors_nothing_is_alike() -> None:
    empty = np.empty((0, 8), np.float32)
    some = np.ones((2, 8), np.float32)
    assert maxsim(empty, some) == maxsim(some, empty) == maxsim(empty, empty) == 0.0
    assert maxsims(some, []).shape == (0,)

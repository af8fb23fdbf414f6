"""Weighted tokens as values: what they are written as, and what may be asked."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from engine import EncoderView, InvalidInput, Outcome, SparseProxy, SparseVector
from engine.operations.operation import Answer, Operation
from engine.operations.sparse import EncodeSparse, SparseEncoding


def vector(*pairs: tuple[int, str, float]) -> SparseVector:
    ids, tokens, weights = zip(*pairs, strict=True) if pairs else ((), (), ())
    return SparseVector(np.asarray(ids, dtype=np.int32), np.asarray(weights, dtype=np.float32), tuple(tokens))


class FakeSparse:
    def __init__(self) -> None:
        self.asked: list[tuple[Any, str | None, int]] = []

    def encode_sparse(
        self, inputs: Any, *, task: str | None = None, top_k: int = 128, truncate: bool = True
    ) -> SparseEncoding:
        self.asked.append((inputs, task, top_k))
        return SparseEncoding((vector((1, "a", 1.0)),) * len(inputs), 7)


class FakeEngine:
    def __init__(self) -> None:
        self.adapter = FakeSparse()
        self.calls: list[tuple[str, float | None]] = []

    def view(self, name: str) -> EncoderView:
        raise AssertionError("nobody looks")

    def load(self, name: str) -> Outcome:
        raise AssertionError("nobody warms")

    def ask(
        self, name: str, operation: Operation[Any], used_by: str | None = None, keep_alive: float | None = None
    ) -> Future[Answer[Any]]:
        answer: Future[Answer[Any]] = Future()
        answer.set_result(Answer(self.call(name, operation, used_by, keep_alive), name, None))
        return answer

    def call(
        self, name: str, operation: Callable[[Any], Any], used_by: str | None = None, keep_alive: float | None = None
    ) -> Any:
        self.calls.append((name, keep_alive))
        return operation(self.adapter)


def test_the_proxy_asks_for_what_it_is_asked_and_for_nothing_when_there_are_no_texts() -> None:
    engine = FakeEngine()
    proxy = SparseProxy(engine, "splade")
    assert proxy.encode([]) == ()
    assert engine.calls == []
    assert len(proxy.encode(["a", "b"], top_k=3, task="passage", keep_alive=0.0)) == 2
    proxy.encode(["a"])
    assert engine.calls == [("splade", 0.0), ("splade", None)]
    assert engine.adapter.asked == [(["a", "b"], "passage", 3), (["a"], None, 128)]


def test_the_adapter_is_asked_what_the_operation_says() -> None:
    adapter = FakeSparse()
    found = EncodeSparse(["a", "b"], task="query", top_k=3)(adapter)
    assert (len(found.vectors), found.tokens) == (2, 7)
    assert adapter.asked == [(["a", "b"], "query", 3)]
    assert EncodeSparse([[1, 2], [3]])(adapter).vectors[0].tokens == ("a",)


def test_a_sparse_and_a_multi_encoder_can_do_it() -> None:
    assert EncodeSparse.kinds == ("sparse", "multi")


def test_no_texts_are_no_vectors() -> None:
    operation = EncodeSparse([])
    assert (operation.size, operation.nothing().vectors, operation.nothing().tokens) == (0, (), 0)


@pytest.mark.parametrize("top_k", [0, -1, 1.0, True, "5", None])
def test_top_k_is_a_whole_number_above_zero(top_k: Any) -> None:
    with pytest.raises(InvalidInput, match="top_k") as caught:
        EncodeSparse(["a"], top_k=top_k)
    assert caught.value.param == "top_k"


@pytest.mark.parametrize(
    "inputs", ["a", b"a", [b"a"], ["\ud800"], ["a", 3], ["a", [1]], [[1], "a"], [[1.0]], [[True]], 3]
)
def test_what_is_neither_texts_nor_ids_is_refused(inputs: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        EncodeSparse(inputs)
    assert caught.value.param == "texts"


@pytest.mark.parametrize("task", ["document", "", 3])
def test_an_unknown_task_is_refused(task: Any) -> None:
    with pytest.raises(InvalidInput, match="query, passage"):
        EncodeSparse(["a"], task=task)


def test_by_token_rounds_keeps_the_order_and_leaves_out_what_rounds_to_nothing() -> None:
    written = vector((7, "b", 1.23456), (3, "a", 0.5), (9, "c", 0.00004)).by_token()
    assert list(written.items()) == [("b", 1.2346), ("a", 0.5)]
    assert vector((9, "c", 0.00004)).by_token(decimals=5) == {"c": pytest.approx(0.00004)}
    assert vector().by_token() == {}


def test_of_ids_that_are_written_alike_no_weight_is_lost() -> None:
    assert vector((7, "a", 2.0), (3, "b", 1.5), (9, "a", 1.0)).by_token() == {"a": 2.0, "b": 1.5, "a [9]": 1.0}


def test_the_weights_of_shared_tokens_are_multiplied_and_summed() -> None:
    a = vector((7, "b", 3.0), (3, "a", 2.0), (1, "c", 1.0))
    b = vector((1, "c", 4.0), (7, "b", 0.5), (8, "d", 9.0))
    assert SparseProxy.dot(a, b) == SparseProxy.dot(b, a) == 3.0 * 0.5 + 1.0 * 4.0
    assert SparseProxy.dot(a, vector()) == SparseProxy.dot(vector(), vector()) == 0.0
    assert SparseProxy.dot(a, vector((99, "z", 1.0))) == 0.0


def test_ids_of_another_tokenizer_are_named_as_the_caller_named_them() -> None:
    class Foreign:
        def encode_sparse(self, inputs: Any, *, task: str | None, top_k: int, truncate: bool = True) -> SparseEncoding:
            raise InvalidInput("input[0] holds token ids", param="input")

    with pytest.raises(InvalidInput, match=r"^texts\[0\] holds") as refused:
        EncodeSparse([[1]])(Foreign())
    assert refused.value.param == "texts"

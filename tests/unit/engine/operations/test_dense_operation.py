"""One vector per text: what may be asked, and what is passed on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine import InvalidInput
from engine.operations.dense import Embed, Encoding


class FakeDense:
    def __init__(self) -> None:
        self.asked: list[tuple[Any, str | None, int | None]] = []

    def encode(
        self, inputs: Any, *, task: str | None = None, dimensions: int | None = None, truncate: bool = True
    ) -> Encoding:
        self.asked.append((inputs, task, dimensions))
        return Encoding(np.ones((len(inputs), 2), dtype=np.float32), 7)


def test_the_adapter_is_asked_what_the_operation_says() -> None:
    adapter = FakeDense()
    encoding = Embed(["a", "b"], task="passage", dimensions=2)(adapter)
    assert (encoding.vectors.shape, encoding.tokens) == ((2, 2), 7)
    Embed(((1, 2), (3,)))(adapter)
    assert adapter.asked == [(["a", "b"], "passage", 2), (((1, 2), (3,)), None, None)]


def test_no_texts_are_no_vectors() -> None:
    operation = Embed([])
    nothing = operation.nothing()
    assert (operation.size, nothing.tokens) == (0, 0)
    assert nothing.vectors.shape == (0, 0)
    assert nothing.vectors.dtype == np.float32


@pytest.mark.parametrize("texts", [[""], ["\x00"], ["x" * 1_000_000], ("a", "b"), ["🔥"] * 2048])
def test_any_text_that_utf8_can_write_is_taken(texts: Any) -> None:
    assert Embed(texts).size == len(texts)


@pytest.mark.parametrize(
    "inputs",
    [
        *("a", b"a", [b"a"], ["\ud800"], ["a", "\udfff"], ["a", 3], ["a", [1]], ["a", None]),
        *([[1], "a"], [[1.0]], [[True]], [[1], None], [["a"]], [3], 3, None, {"a": 1}, np.asarray(["a", "b"])),
    ],
    ids=repr,
)
def test_what_is_neither_texts_nor_ids_is_refused_and_named(inputs: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^input") as caught:
        Embed(inputs, field="input")
    assert caught.value.param == "input"


def test_which_item_is_wrong_is_said_and_its_text_is_not() -> None:
    with pytest.raises(InvalidInput, match=r"texts\[2\]") as caught:
        Embed(["a", "b", "secret \ud800"])
    assert "secret" not in str(caught.value)
    assert "surrogates" in (caught.value.next_step or "")


@pytest.mark.parametrize("dimensions", [0, -3, 1.0, True, "5"])
def test_dimensions_are_a_whole_number_above_zero(dimensions: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        Embed(["a"], dimensions=dimensions)
    assert caught.value.param == "dimensions"


@pytest.mark.parametrize("task", ["document", "Query", "", 3, ["query"]])
def test_an_unknown_task_is_refused(task: Any) -> None:
    with pytest.raises(InvalidInput, match="query, passage") as caught:
        Embed(["a"], task=task)
    assert caught.value.param == "task"


@pytest.mark.parametrize("inputs", [[1], [b"abc"], [None]])
def test_what_is_no_text_is_told_by_its_type_and_not_as_broken_text(inputs: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^texts\[0\] is not a text but of type (int|bytes|NoneType)\.$") as refused:
        Embed(inputs)
    assert refused.value.next_step is None


def test_ids_of_another_tokenizer_are_named_as_the_caller_named_them() -> None:
    class Foreign:
        def encode(self, inputs: Any, *, task: str | None, dimensions: int | None, truncate: bool = True) -> Encoding:
            raise InvalidInput("input[0] holds token ids", param="input")

    with pytest.raises(InvalidInput, match=r"^texts\[0\] holds") as refused:
        Embed([[1]])(Foreign())
    assert refused.value.param == "texts"

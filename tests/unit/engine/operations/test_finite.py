"""Results that hold NaN or infinity are refused: in every field, before anything is sorted, in the caller's words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np
import pytest

from engine.errors import InvalidInput, NotFinite
from engine.operations.axes import BaseVectors, EmbedInBase, EncodeAxes, Projection
from engine.operations.classify import Classification, Classify, ZeroShot
from engine.operations.dense import Embed, Encoding
from engine.operations.finite import check_finite, check_plain
from engine.operations.inputs import ITEMS
from engine.operations.multi import MultiEncoding
from engine.operations.operation import Operation
from engine.operations.plugin import Call
from engine.operations.rerank import Ranking, ReRank, Score, Scores, Splice, Spliced
from engine.operations.sparse import SparseEncoding, SparseVector

NAN, INFINITY = float("nan"), float("inf")


def rows() -> np.ndarray:
    return np.ones((3, 2), dtype=np.float32)


def row() -> np.ndarray:
    return np.ones(3, dtype=np.float32)


def sparse() -> tuple[SparseVector, ...]:
    return tuple(SparseVector(np.arange(2, dtype=np.int32), np.ones(2, np.float32), ("a", "b")) for _ in range(3))


MAKERS: dict[str, Callable[[], Any]] = {
    "dense": lambda: Encoding(rows(), 3),
    "base": lambda: BaseVectors(rows(), "1", 3),
    "axes": lambda: Projection(rows(), ("a", "b"), 3),
    "sparse": lambda: SparseEncoding(sparse(), 3),
    "multi": lambda: MultiEncoding(rows(), sparse(), (rows(), rows(), rows()), 3),
    "scores": lambda: Scores(row(), row(), 3),
    "ranking": lambda: Ranking(np.arange(3), row(), 3),
    "spliced": lambda: Spliced(((0,), (), ()), (row(), row(), row()), 3),
    "classes": lambda: Classification(("a", "b"), rows(), rows(), 3),
    "regression": lambda: Classification(("a", "b"), None, rows(), 3),
}
"""Results for three items each."""


def floats(value: Any, item: int) -> list[np.ndarray]:
    """The parts of a result's float arrays that are of one item."""
    if isinstance(value, np.ndarray):
        return [value[item : item + 1]] if value.dtype.kind == "f" else []
    found: list[np.ndarray] = []
    for field in dataclasses.fields(value):
        content = getattr(value, field.name)
        if isinstance(content, tuple):
            one = content[item] if item < len(content) else None
            found += [one] if isinstance(one, np.ndarray) else floats_of(one)
        elif isinstance(content, np.ndarray):
            found += floats(content, item)
    return found


def floats_of(value: Any) -> list[np.ndarray]:
    return [value.weights] if isinstance(value, SparseVector) else []


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(("value", "word"), [(NAN, "NaN"), (INFINITY, "infinity"), (-INFINITY, "infinity")])
def test_each_number_of_each_result_is_looked_at_and_the_first_bad_item_named(
    name: str, value: float, word: str
) -> None:
    check_finite(MAKERS[name](), None)
    for item in range(3):
        for part in range(len(floats(MAKERS[name](), item))):
            result = MAKERS[name]()
            floats(result, item)[part].flat[-1] = value
            with pytest.raises(NotFinite, match=rf"gives {word} for {ITEMS}\[{item}\]\. "):
                check_finite(result, None)


@pytest.mark.parametrize(
    ("revision", "is_half"),
    [
        ("abc+float16", True),
        ("abc+bfloat16", True),
        ("abc+float16+axes.1", True),
        ("abc+float32", False),
        ("float16", False),
        (None, False),
    ],
)
def test_float32_is_the_next_step_where_the_weights_are_halves(revision: str | None, is_half: bool) -> None:
    with pytest.raises(NotFinite) as caught:
        check_finite(Encoding(np.full((1, 2), NAN, np.float32), 1), revision)
    assert ('set dtype = "float32"' in (caught.value.next_step or "")) is is_half
    assert caught.value.next_step


class Fake:
    """Answers NaN for the item `bad`, counted over all of a request."""

    labels = ("entailment", "contradiction")
    revision = "1+float32"

    def __init__(self, bad: int) -> None:
        self.bad = bad

    def numbers(self, *shape: int) -> np.ndarray:
        found = np.ones(shape, dtype=np.float32)
        found[self.bad] = NAN
        return found

    def encode(self, inputs: Any, **more: Any) -> Encoding:
        return Encoding(self.numbers(len(inputs), 2), 1)

    def score(self, query: str, documents: Any, **more: Any) -> Scores:
        return Scores(self.numbers(len(documents)), self.numbers(len(documents)), 1)

    def classify(self, inputs: Any, **more: Any) -> Classification:
        return Classification(self.labels, self.numbers(len(inputs), 2), self.numbers(len(inputs), 2), 1)

    def encode_axes(self, texts: Any, **more: Any) -> Projection:
        return Projection(self.numbers(len(texts), 2), ("a", "b"), 1)


@pytest.mark.parametrize(
    ("operation", "bad", "item"),
    [
        (Embed(["a", "b"], field="input"), 1, "input[1]"),
        (EmbedInBase(["a", "b"], field="axes"), 1, "axes[1]"),
        (EncodeAxes(["a", "b"]), 1, "texts[1]"),
        (Score("q", ["a", "b"]), 1, "documents[1]"),
        (ReRank("q", ["a", "b"], 1), 1, "documents[1]"),
        (Splice("q", [["a"], [], ["b", "c"]]), 2, "fragments[2][1]"),
        (Splice("q", [["a"], [], ["b", "c"]], field="parts"), 0, "parts[0][0]"),
        (Classify([("a", "b")], field="pairs"), 0, "pairs[0]"),
        (ZeroShot(["a", "b"], ["x", "y"]), 3, "texts[1] with labels[1]"),
        (
            ZeroShot(["a"], ["x", "y"], multi_label=True, labels_field="candidate_labels"),
            1,
            "texts[0] with candidate_labels[1]",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Operation) else str(value),
)
def test_the_item_is_named_as_the_caller_named_it(operation: Operation[Any], bad: int, item: str) -> None:
    with pytest.raises(NotFinite) as caught:
        operation(Fake(bad))
    assert caught.value.message == f"The model gives NaN for {item}."
    caught.value.name_encoder("first")
    caught.value.name_encoder("second")
    assert caught.value.message == f"first gives NaN for {item}."


@pytest.mark.parametrize(
    ("operation", "item"),
    [(Splice("q", [["a"], ["b", "c"]]), "fragments[1][1]"), (ReRank("q", ["a", "b", "c"]), "documents[2]")],
)
def test_input_that_only_the_model_can_refuse_is_named_in_the_same_way(operation: Operation[Any], item: str) -> None:
    class Strict(Fake):
        def score(self, query: str, documents: Any, **more: Any) -> Scores:
            raise InvalidInput(f"{ITEMS}[2] has 900 tokens.", param=ITEMS)

    with pytest.raises(InvalidInput) as caught:
        operation(Strict(0))
    assert (caught.value.message, caught.value.param) == (f"{item} has 900 tokens.", operation.field)


class Number(Enum):
    ONE = 1.0
    BAD = NAN


@dataclasses.dataclass
class Holder:
    value: Any


CIRCLE: list[Any] = [1.0]
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "value",
    [
        NAN, [1, [2, (3, {"a": [-INFINITY]})]], {NAN: 1}, {"a": {NAN}}, np.float32(NAN), np.float16(INFINITY),
        [np.asarray([[1, NAN]])], np.asarray([[1, {"a": NAN}]], dtype=object), Number.BAD, Holder([NAN]), [CIRCLE, NAN],
        [[[[float(index)] for index in range(2000)]], [NAN]],
    ],
    ids=repr,
)  # fmt: skip
def test_plain_data_of_plugins_is_looked_at_however_deep(value: Any) -> None:
    class Plugin:
        def call(self, operation: str, arguments: Any) -> Any:
            return value

    with pytest.raises(NotFinite, match="in the result of shout"):
        Call("shout")(Plugin())


@pytest.mark.parametrize(
    "value",
    [
        None,
        1.5,
        "NaN",
        b"nan",
        CIRCLE,
        {"a": [1, True, None]},
        np.ones((2, 2)),
        np.arange(3),
        Number.ONE,
        Holder(1.0),
        type("Anything", (), {"__repr__": lambda self: "anything"})(),
        float,
    ],
    ids=repr,
)
def test_everything_else_passes(value: Any) -> None:
    check_plain(value, "it")

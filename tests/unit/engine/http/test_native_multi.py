"""`POST /encode/multi`, field by field."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from http_fakes import Caller, FakeDense, caller_of, unit

from engine import Engine, MultiEncoding, SparseVector, parse
from engine.operations.sparse import SparseEncoding
from engine.state import State

SETTINGS = {
    "encoders": {
        "m3": {"kind": "multi", "model": "./m3", "aliases": ["bge-m3"]},
        "vectors": {"kind": "dense", "model": "./fake"},
    }
}


class FakeMulti(FakeDense):
    """Every text has two tokens; its dense vector starts with its length."""

    def encode_multi(
        self, inputs: Sequence[str], *, want: Collection[str], top_k: int | None = None, truncate: bool = True
    ) -> MultiEncoding:
        weights = SparseVector(
            np.array([7, 5, 6], np.int32), np.array([1, 0.12345, 1e-5], np.float32), ("▁a", "b", "c")
        )
        token_vectors = np.array([[0.5, -1.0], [0.25, 0.0]], np.float32)
        return MultiEncoding(
            np.array([[len(text), 0.5, -2.0] for text in inputs], np.float32) if "dense" in want else None,
            (weights,) * len(inputs) if "sparse" in want else None,
            (token_vectors,) * len(inputs) if "colbert" in want else None,
            2 * len(inputs),
        )

    def encode_sparse(
        self, inputs: Sequence[str], *, task: str | None = None, top_k: int = 128, truncate: bool = True
    ) -> SparseEncoding:
        found = self.encode_multi(inputs, want=("sparse",)).sparse
        assert found is not None
        return SparseEncoding(found, 0)


DENSE = [[2.0, 0.5, -2.0]]
SPARSE = [{"▁a": 1.0, "b": 0.1235}]
COLBERT = [[[0.5, -1.0], [0.25, 0.0]]]


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(parse(SETTINGS), adapter=FakeMulti) as engine:
        yield engine


@pytest.fixture
def caller(engine: Engine) -> Caller:
    return caller_of(engine)


def multi(caller: Caller, **body: Any) -> Any:
    return caller.send("POST", "/encode/multi", json=body)


def test_an_answer_has_every_form(caller: Caller) -> None:
    answer = multi(caller, texts=["ab"], model="bge-m3", later=1)
    assert answer.status_code == 200
    assert answer.json() == {
        "dense": DENSE, "sparse": SPARSE, "colbert": COLBERT, "dim": 3, "model": "bge-m3", "revision": "7",
        "truncated": 0,
    }  # fmt: skip
    assert list(answer.json()["sparse"][0]) == ["▁a", "b"], "by falling weight"


@pytest.mark.parametrize(
    ("wanted", "forms"),
    [
        (["dense"], {"dense": DENSE, "dim": 3}),
        (["sparse"], {"sparse": SPARSE, "dim": None}),
        (["colbert"], {"colbert": COLBERT, "dim": 2}),
        (["colbert", "sparse"], {"colbert": COLBERT, "sparse": SPARSE, "dim": 2}),
        (["dense", "dense"], {"dense": DENSE, "dim": 3}),
    ],
)
def test_an_answer_has_only_what_was_asked_for(caller: Caller, wanted: list[str], forms: dict[str, Any]) -> None:
    assert multi(caller, texts=["ab"], **{"return": wanted}).json() == {
        **forms,
        "model": "m3",
        "revision": "7",
        "truncated": 0,
    }


@pytest.mark.parametrize("wanted", [[], ["lexical"], "dense", None, [1], ["dense"] * 4, {}])
def test_forms_that_do_not_exist_are_refused_by_the_name_of_their_field(
    caller: Caller, engine: Engine, wanted: Any
) -> None:
    answer = multi(caller, texts=["ab"], **{"return": wanted})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("return: ")
    assert engine.view("m3").state is State.UNLOADED


def test_a_multi_encoder_answers_the_routes_of_dense_and_sparse_ones(caller: Caller) -> None:
    assert caller.embed(["ab"], model="m3").json()["data"][0]["embedding"] == pytest.approx(unit(DENSE[0]))
    dense = caller.send("POST", "/encode/dense", json={"texts": ["ab"], "model": "m3"})
    assert dense.json() == {"vectors": DENSE, "dim": 3, "model": "m3", "revision": "7", "truncated": 0}
    sparse = caller.send("POST", "/encode/sparse", json={"texts": ["ab"]})
    assert sparse.json() == {"sparse": SPARSE, "model": "m3", "revision": "7", "truncated": 0}


@pytest.mark.parametrize("forms", ["dense", [], ["image"], [1], None, ["dense"] * 4, [["dense"]]])
def test_other_forms_are_refused_with_those_that_there_are(caller: Caller, forms: Any) -> None:
    answer = multi(caller, texts=["a"], **{"return": forms})
    assert answer.status_code == 422
    assert answer.json()["detail"] == "return: must be a list of some of dense, sparse, colbert."

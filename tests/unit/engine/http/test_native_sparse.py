"""The native route of sparse encoders, in front of an engine whose encoders are fakes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from http_fakes import Caller, FakeDense, caller_of

from engine import Engine, SparseVector, State, parse
from engine.adapters.context import DETACHED, AdapterContext
from engine.operations.sparse import SparseEncoding
from engine.settings.config import EncoderConfig


class FakeSparse(FakeDense):
    """Weighs three tokens in each text, and keeps what it was asked."""

    asked: list[tuple[Any, str | None, int]]

    def __init__(self, config: EncoderConfig, device: str, context: AdapterContext = DETACHED) -> None:
        super().__init__(config, device, context)
        FakeSparse.asked = []

    def encode_sparse(
        self, inputs: Any, *, task: str | None = None, top_k: int = 128, truncate: bool = True
    ) -> SparseEncoding:
        self.asked.append((inputs, task, top_k))
        weights = np.asarray([2.123456, 1.0, 0.00001], dtype=np.float32)
        vector = SparseVector(np.asarray([7, 3, 5], dtype=np.int32), weights, ("##z", "gas", "dust"))
        return SparseEncoding((vector,) * len(inputs), 0)


@pytest.fixture
def engine() -> Iterator[Engine]:
    table = {
        "splade": {"kind": "sparse", "model": "./splade"},
        "m3": {"kind": "multi", "model": "./m3"},
    }
    with Engine(parse({"hardware": {"idle_timeout_seconds": 0}, "encoders": table}), adapter=FakeSparse) as engine:
        yield engine


@pytest.fixture
def caller(engine: Engine) -> Caller:
    return caller_of(engine)


def ask(caller: Caller, path: str = "/encode/sparse", **body: Any) -> httpx.Response:
    return caller.send("POST", path, json=body)


@pytest.mark.parametrize("path", ["/encode/sparse", "/encode/splade"])
def test_tokens_come_by_falling_weight_with_four_decimals(caller: Caller, path: str) -> None:
    answer = ask(caller, path, texts=["a", "b"], task="query", top_k=9)
    assert answer.status_code == 200
    row = '{"##z":2.1235,"gas":1.0}'
    assert answer.text == f'{{"sparse":[{row},{row}],"truncated":0,"model":"splade","revision":"7"}}'
    assert FakeSparse.asked == [(["a", "b"], "query", 9)]


def test_what_is_left_out_is_the_default(caller: Caller) -> None:
    assert ask(caller, texts=["a"]).json()["model"] == "splade"
    assert FakeSparse.asked == [(["a"], None, 128)]


def test_a_multi_encoder_serves_under_its_name(caller: Caller) -> None:
    assert ask(caller, texts=["a"], model="m3").json()["model"] == "m3"


BAD = [
    {"texts": ["a"], "top_k": 0},
    {"texts": ["a"], "top_k": "9"},
    {"texts": ["a"], "top_k": 9.0},
    {"texts": ["a"], "top_k": True},
    {"texts": ["a"], "top_k": None},
    {"texts": ["a"], "task": "document"},
]


@pytest.mark.parametrize("body", BAD, ids=str)
def test_a_bad_body_is_refused_and_loads_nothing(caller: Caller, engine: Engine, body: dict[str, Any]) -> None:
    answer = ask(caller, **body)
    assert answer.status_code in (400, 422), answer.text
    assert set(answer.json()) == {"detail", "title", "next_step"}
    assert engine.view("splade").state is State.UNLOADED

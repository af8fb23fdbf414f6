"""The native route of sparse encoders, in front of an engine whose encoders are fakes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from http_fakes import Caller, FakeDense

from engine import Engine, SparseVector, State, parse
from engine.adapters.context import ALONE, Surroundings
from engine.http.app import create_app
from engine.operations.sparse import SparseEncoding
from engine.settings.config import EncoderConfig


class FakeSparse(FakeDense):
    """Weighs three tokens in each text, and keeps what it was asked."""

    asked: list[tuple[Any, str | None, int]]

    def __init__(self, config: EncoderConfig, device: str, surroundings: Surroundings = ALONE) -> None:
        super().__init__(config, device, surroundings)
        FakeSparse.asked = []

    def encode_sparse(self, inputs: Any, *, task: str | None = None, top_k: int = 128) -> SparseEncoding:
        self.asked.append((inputs, task, top_k))
        weights = np.asarray([2.123456, 1.0, 0.00001], dtype=np.float32)
        vector = SparseVector(np.asarray([7, 3, 5], dtype=np.int32), weights, ("##z", "gas", "dust"))
        return SparseEncoding((vector,) * len(inputs), 0)


@pytest.fixture
def engine() -> Iterator[Engine]:
    table = {
        "dense": {"kind": "dense", "model": "./dense"},
        "splade": {"kind": "sparse", "model": "./splade", "aliases": ["other-name"]},
        "m3": {"kind": "multi", "model": "./m3"},
        "failing": {"kind": "sparse", "model": "./failing"},
    }
    with Engine(parse({"hardware": {"idle_timeout_seconds": 0}, "encoders": table}), adapter=FakeSparse) as engine:
        yield engine


@pytest.fixture
def caller(engine: Engine) -> Caller:
    return Caller(create_app(engine, host="127.0.0.1", token="t", version="1"), "t")


def ask(caller: Caller, path: str = "/encode/sparse", **body: Any) -> httpx.Response:
    return caller.send("POST", path, json=body)


@pytest.mark.parametrize("path", ["/encode/sparse", "/encode/splade"])
def test_tokens_come_by_falling_weight_with_four_decimals(caller: Caller, path: str) -> None:
    answer = ask(caller, path, texts=["a", "b"], task="query", top_k=9)
    assert answer.status_code == 200
    row = '{"##z":2.1235,"gas":1.0}'
    assert answer.text == f'{{"sparse":[{row},{row}],"model":"splade","revision":"7"}}'
    assert FakeSparse.asked == [(["a", "b"], "query", 9)]


def test_what_is_left_out_is_the_default(caller: Caller) -> None:
    assert ask(caller, texts=["a"]).json()["model"] == "splade"
    assert FakeSparse.asked == [(["a"], None, 128)]


@pytest.mark.parametrize("name", ["other-name", "m3"])
def test_an_alias_or_a_multi_encoder_serves_under_the_name_that_was_asked_for(caller: Caller, name: str) -> None:
    assert ask(caller, texts=["a"], model=name).json()["model"] == name


def test_no_texts_load_nothing(caller: Caller, engine: Engine) -> None:
    assert ask(caller, texts=[]).json() == {"sparse": [], "model": "splade", "revision": None}
    assert engine.view("splade").state is State.UNLOADED


def test_2049_texts_are_422_and_2048_are_answered(caller: Caller, engine: Engine) -> None:
    answer = ask(caller, texts=["a"] * 2049)
    assert answer.status_code == 422
    assert "2048" in answer.json()["detail"]
    assert engine.view("splade").state is State.UNLOADED
    assert len(ask(caller, texts=["a"] * 2048).json()["sparse"]) == 2048


BAD = [
    {},
    {"texts": "a"},
    {"texts": None},
    {"texts": ["a", 3]},
    {"texts": [[1]]},
    {"texts": ["a"], "top_k": 0},
    {"texts": ["a"], "top_k": "9"},
    {"texts": ["a"], "top_k": 9.0},
    {"texts": ["a"], "top_k": True},
    {"texts": ["a"], "top_k": None},
    {"texts": ["a"], "task": "document"},
    {"texts": ["a"], "model": 3},
]


@pytest.mark.parametrize("body", BAD, ids=str)
def test_a_bad_body_is_refused_and_loads_nothing(caller: Caller, engine: Engine, body: dict[str, Any]) -> None:
    answer = ask(caller, **body)
    assert answer.status_code in (400, 422), answer.text
    assert set(answer.json()) == {"detail", "title", "next_step"}
    assert engine.view("splade").state is State.UNLOADED


def test_a_lone_surrogate_is_400_and_loads_nothing(caller: Caller, engine: Engine) -> None:
    answer = caller.raw(b'{"texts": ["\\ud800"]}', "/encode/sparse")
    assert answer.status_code == 400
    assert "texts[0]" in answer.json()["detail"]
    assert "surrogates" in answer.json()["next_step"]
    assert engine.view("splade").state is State.UNLOADED


def test_a_dense_encoder_cannot_do_it(caller: Caller) -> None:
    answer = ask(caller, texts=["a"], model="dense")
    assert answer.status_code == 404
    assert "not sparse or multi" in answer.json()["detail"]


def test_a_failed_load_is_503_with_its_next_step(caller: Caller) -> None:
    answer = ask(caller, texts=["a"], model="failing")
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers
    assert answer.json()["next_step"] == "Put it out."


def test_keep_alive_is_kept(caller: Caller, engine: Engine) -> None:
    ask(caller, texts=["a"], keep_alive="10m")
    assert engine.view("splade").keep_alive_seconds == 600

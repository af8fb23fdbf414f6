"""The native route of dense encoders, in front of an engine whose encoders are fakes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from http_fakes import Caller, FakeDense, caller_of, unit

from engine import Engine, State, parse
from engine.adapters.context import DETACHED, AdapterContext
from engine.operations.dense import Encoding
from engine.settings.config import EncoderConfig


class FakePrompted(FakeDense):
    """Keeps what it was asked."""

    asked: list[tuple[Any, str | None, int | None]]

    def __init__(self, config: EncoderConfig, device: str, context: AdapterContext = DETACHED) -> None:
        super().__init__(config, device, context)
        FakePrompted.asked = []

    def encode(
        self, inputs: Any, *, task: str | None = None, dimensions: int | None = None, truncate: bool = True
    ) -> Encoding:
        self.asked.append((inputs, task, dimensions))
        return Encoding(np.asarray([[0.5, -2.0, 0.1]] * len(inputs), dtype=np.float32)[:, :dimensions], 3)


@pytest.fixture
def engine() -> Iterator[Engine]:
    table = {
        "dense": {"kind": "dense", "model": "./dense"},
        "m3": {"kind": "multi", "model": "./m3"},
        "clip": {"kind": "image_text", "model": "./clip"},
    }
    with Engine(parse({"hardware": {"idle_timeout_seconds": 0}, "encoders": table}), adapter=FakePrompted) as engine:
        yield engine


@pytest.fixture
def caller(engine: Engine) -> Caller:
    return caller_of(engine)


def ask(caller: Caller, **body: Any) -> httpx.Response:
    return caller.send("POST", "/encode/dense", json=body)


def test_vectors_come_with_their_length_and_who_made_them(caller: Caller) -> None:
    answer = ask(caller, texts=["a", "b"])
    assert answer.status_code == 200
    assert answer.json() == {
        "vectors": [[0.5, -2.0, 0.1]] * 2,
        "dim": 3,
        "model": "dense",
        "revision": "7",
        "truncated": 0,
    }
    assert FakePrompted.asked == [(["a", "b"], None, None)]


@pytest.mark.parametrize("task", ["query", "passage"])
def test_task_and_dimensions_are_passed_on(caller: Caller, task: str) -> None:
    answer = ask(caller, texts=["a"], task=task, dimensions=2)
    assert answer.json()["vectors"] == [[0.5, -2.0]]
    assert answer.json()["dim"] == 2
    assert FakePrompted.asked == [(["a"], task, 2)]


def test_vectors_have_length_1_where_normalize_asks_for_it(caller: Caller) -> None:
    for normalize in (None, False):
        assert ask(caller, texts=["a"], normalize=normalize).json()["vectors"] == [[0.5, -2.0, 0.1]]
    [vector] = ask(caller, texts=["a"], normalize=True).json()["vectors"]
    assert vector == pytest.approx(unit([0.5, -2.0, 0.1]))


@pytest.mark.parametrize("name", ["m3", "clip"])
def test_whatever_makes_one_vector_per_text_serves(caller: Caller, name: str) -> None:
    assert ask(caller, texts=["a"], model=name).json()["model"] == name


BAD = [
    {"texts": ["a"], "dimensions": 0},
    {"texts": ["a"], "dimensions": "2"},
    {"texts": ["a"], "dimensions": 2.0},
    {"texts": ["a"], "dimensions": True},
    {"texts": ["a"], "task": "document"},
]


@pytest.mark.parametrize("body", BAD, ids=str)
def test_a_bad_body_is_refused_and_loads_nothing(caller: Caller, engine: Engine, body: dict[str, Any]) -> None:
    answer = ask(caller, **body)
    assert answer.status_code in (400, 422), answer.text
    assert set(answer.json()) == {"detail", "title", "next_step"}
    assert engine.view("dense").state is State.UNLOADED


@pytest.mark.parametrize("text", ["", "\x00", "x" * 1_000_000])
def test_odd_texts_are_texts(caller: Caller, text: str) -> None:
    assert ask(caller, texts=[text]).status_code == 200
    assert FakePrompted.asked == [([text], None, None)]

"""`POST /encode/tag`: the shape of its answers, in front of a tagger without a pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from http_fakes import Caller, FakeDense

from engine.engine import Engine
from engine.errors import InvalidInput
from engine.http.app import create_app
from engine.operations.tag import Entity, Tagged, Token
from engine.settings.parsing import parse


class FakeTagger(FakeDense):
    """One token per character; knows the lemma of "a" and takes capitals for names."""

    def tag(self, texts: Sequence[str]) -> tuple[Tagged, ...]:
        if "long" in texts:
            raise InvalidInput("texts[0] is too long.", param="texts", next_step="Cut it.")
        return tuple(
            Tagged(
                tuple(Token(c, i, i + 1, "X", "CH", "A" if c == "a" else None) for i, c in enumerate(text)),
                tuple(Entity(c, "CAPITAL", i, i + 1) for i, c in enumerate(text) if c.isupper()),
            )
            for text in texts
        )


@pytest.fixture
def engine() -> Iterator[Engine]:
    encoders = {
        "words": {"kind": "tag", "model": "en_core_web_sm", "aliases": ["tagger"]},
        "vectors": {"kind": "dense", "model": "./x"},
    }
    with Engine(parse({"encoders": encoders}), adapter=FakeTagger) as engine:
        yield engine


@pytest.fixture
def caller(engine: Engine) -> Caller:
    return Caller(create_app(engine, host="127.0.0.1", token="t", version="1"), "t")


def test_tokens_and_entities_of_each_text(caller: Caller) -> None:
    answer = caller.send("POST", "/encode/tag", json={"texts": ["aB", ""]})
    assert answer.status_code == 200
    assert answer.json() == {
        "docs": [
            {
                "tokens": [
                    {"text": "a", "start": 0, "end": 1, "pos": "X", "tag": "CH", "lemma": "A"},
                    {"text": "B", "start": 1, "end": 2, "pos": "X", "tag": "CH"},
                ],
                "entities": [{"text": "B", "label": "CAPITAL", "start": 1, "end": 2}],
            },
            {"tokens": [], "entities": []},
        ],
        "model": "words",
        "revision": "7",
    }


def test_the_name_that_was_asked_for_comes_back(caller: Caller) -> None:
    answer = caller.send("POST", "/encode/tag", json={"texts": ["a"], "model": "tagger"}).json()
    assert answer["model"] == "tagger"


def test_no_texts_load_nothing(caller: Caller, engine: Engine) -> None:
    answer = caller.send("POST", "/encode/tag", json={"texts": []})
    assert answer.json() == {"docs": [], "model": "words", "revision": None}
    assert not engine.view("words").loads


@pytest.mark.parametrize(("items", "status"), [(2048, 200), (2049, 422)])
def test_the_most_texts_of_one_request(caller: Caller, items: int, status: int) -> None:
    assert caller.send("POST", "/encode/tag", json={"texts": ["a"] * items}).status_code == status


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({}, 422, "texts"),
        ({"texts": "one text"}, 422, "texts"),
        ({"texts": [1]}, 422, "texts"),
        ({"texts": ["long"]}, 400, "too long"),
        ({"texts": ["a"], "model": "vectors"}, 404, "kind dense"),
        ({"texts": ["a"], "model": "nobody"}, 404, "nobody"),
    ],
)
def test_what_is_wrong_is_named(caller: Caller, body: object, status: int, word: str) -> None:
    answer = caller.send("POST", "/encode/tag", json=body)
    assert answer.status_code == status
    assert word in answer.json()["detail"]


def test_a_lone_surrogate_is_refused(caller: Caller) -> None:
    answer = caller.raw(b'{"texts": ["\\ud800"]}', "/encode/tag")
    assert answer.status_code in (400, 422)
    assert caller.send("POST", "/encode/tag", json={"texts": ["nul\0"]}).status_code == 200

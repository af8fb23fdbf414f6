"""`POST /encode/tag`: the shape of its answers, in front of a tagger without a pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from http_fakes import Caller, FakeDense, caller_of

from engine.engine import Engine
from engine.errors import InvalidInput
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
        "words": {"kind": "tag", "model": "en_core_web_sm"},
    }
    with Engine(parse({"encoders": encoders}), adapter=FakeTagger) as engine:
        yield engine


@pytest.fixture
def caller(engine: Engine) -> Caller:
    return caller_of(engine)


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


def test_what_only_the_model_can_tell_is_400(caller: Caller) -> None:
    answer = caller.send("POST", "/encode/tag", json={"texts": ["long"]})
    assert answer.status_code == 400
    assert "too long" in answer.json()["detail"]


def test_a_nul_is_text(caller: Caller) -> None:
    assert caller.send("POST", "/encode/tag", json={"texts": ["nul\0"]}).status_code == 200

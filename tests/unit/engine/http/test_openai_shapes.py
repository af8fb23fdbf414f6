"""The OpenAI dialect's answers, field by field."""

from __future__ import annotations

import base64
import struct
import threading

import pytest
from http_fakes import Caller, FakeDense, unit

from engine.adapters.protocol import Loaded
from engine.engine import Engine
from engine.state import State


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
def test_an_answer_has_openais_shape(caller: Caller, path: str) -> None:
    answer = caller.send("POST", path, json={"model": "other-name", "input": ["ab", "c"], "user": "me", "later": 1})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": pytest.approx(unit([2.0, 0.5, -2.0]))},
            {"object": "embedding", "index": 1, "embedding": pytest.approx(unit([1.0, 0.5, -2.0]))},
        ],
        "model": "other-name",
        "usage": {"prompt_tokens": 3, "total_tokens": 3, "truncated": 0, "truncated_tokens": 0},
        "dim": 3,
        "revision": "7",
    }


def test_the_revision_is_the_encoders_while_it_computed_and_not_what_is_shown_of_it(
    caller: Caller, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = threading.get_ident()

    def revision(self: FakeDense) -> str:
        at_work = engine.view("fake").in_flight and threading.get_ident() != here
        return "of the work" if at_work else "of another time"

    monkeypatch.setattr(FakeDense, "revision", property(revision))
    answer = caller.embed("ab", model="fake")
    assert (answer.json()["revision"], engine.view("fake").revision) == ("of the work", "7")
    assert caller.embed([], model="fake").json()["revision"] == "7"


def test_base64_is_little_endian_float32(caller: Caller) -> None:
    coded = caller.embed("ab", encoding_format="base64").json()["data"][0]["embedding"]
    assert struct.unpack("<3f", base64.b64decode(coded)) == pytest.approx(unit([2.0, 0.5, -2.0]))


@pytest.mark.parametrize(
    ("content", "lengths"), [("abc", [3]), (["abc", "d"], [3, 1]), ([1, 2], [2]), ([[1], [2, 3]], [1, 2]), ([""], [0])]
)
def test_every_form_of_input_is_read(caller: Caller, content: object, lengths: list[int]) -> None:
    vectors = [item["embedding"] for item in caller.embed(content).json()["data"]]
    assert vectors == [pytest.approx(unit([length, 0.5, -2.0])) for length in lengths]


def test_the_models_are_listed_loaded_or_not(caller: Caller, engine: Engine) -> None:
    listed = caller.send("GET", "/v1/models").json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["fake", "failing", "missing"]
    for model in listed["data"]:
        assert (model["object"], model["owned_by"], model["kind"]) == ("model", "pilotlight", "dense")
        assert isinstance(model["created"], int)
    assert caller.send("GET", "/v1/models/other-name").json()["id"] == "fake"
    assert {view.state for view in engine.views()} == {State.UNLOADED}


def test_an_unknown_model_is_404_in_openais_shape(caller: Caller) -> None:
    answer = caller.send("GET", "/v1/models/org/gpt")
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("not_found_error", "model_not_found")
    assert "fake, failing, missing" in error["message"]


@pytest.mark.parametrize("encoding_format", ["float", "base64", None])
@pytest.mark.parametrize("inputs", [["a", "", ""], [""]])
def test_a_vector_of_zeros_is_400_that_names_the_item(
    caller: Caller, inputs: list[str], encoding_format: str | None
) -> None:
    answer = caller.embed(inputs, dimensions=1, encoding_format=encoding_format)  # the first number is the length
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["message"].startswith(f"input[{len(inputs) // 2}] has a vector of zeros")
    assert (error["type"], error["param"]) == ("invalid_request_error", "input")


def test_an_entry_of_the_list_says_dimension_and_limit_once_they_are_known(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"dimension": 3, "max_tokens": 1000, "similarity": "cosine"}
    monkeypatch.setattr(FakeDense, "load", lambda self, on=None: Loaded("cpu", "7", 0.0, 0.0, metadata=facts))
    assert not {*facts} & {*caller.send("GET", "/v1/models/fake").json()}
    caller.embed("a", model="fake")
    for entry in (caller.send("GET", "/v1/models/fake").json(), caller.send("GET", "/v1/models").json()["data"][0]):
        assert (entry["dimension"], entry["max_tokens"]) == (3, 1000)
        assert "similarity" not in entry

"""`POST /encode/plugin`: what goes to a plug-in, and what comes back from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from http_fakes import Caller, FakeDense, caller_of

from engine.engine import Engine
from engine.errors import EncoderError, InvalidInput
from engine.settings.parsing import parse

RESULTS: dict[str, Any] = {
    "nothing": None,
    "array": np.arange(6, dtype=np.float32).reshape(2, 3),
    "turned": {"vectors": [np.arange(6, dtype=np.float32).reshape(2, 3).T[::2]]},
    "swapped": np.array([1, 2], dtype=">i4"),
    "pair": (1, "two"),
    "set": {1},
    "objects": [object()],
    "surrogate": "\ud800",
}
RESULTS["endless"] = endless = []
endless.append(endless)


class FakePlugin(FakeDense):
    """`echo` gives back its arguments, `fail` and `refuse` raise, others give what RESULTS has."""

    def call(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        if operation == "fail":
            raise EncoderError("mine failed in fail: KeyError: 3", title="Plug-in failed", next_step="See the log.")
        if operation == "refuse":
            raise InvalidInput("refuse: no.", param="arguments")
        return dict(arguments) if operation == "echo" else RESULTS[operation]


@pytest.fixture
def caller() -> Iterator[Caller]:
    encoders = {"mine": {"kind": "plugin", "model": "shouter"}}
    with Engine(parse({"encoders": encoders}), adapter=FakePlugin) as engine:
        yield caller_of(engine)


def ask(caller: Caller, operation: str, **more: Any) -> Any:
    return caller.send("POST", "/encode/plugin", json={"operation": operation, **more})


def test_arguments_go_in_and_the_result_comes_out(caller: Caller) -> None:
    answer = ask(caller, "echo", model="mine", arguments={"texts": ["a"], "deep": {"n": [1, None]}})
    assert answer.status_code == 200
    assert answer.json() == {"result": {"texts": ["a"], "deep": {"n": [1, None]}}, "model": "mine", "revision": "7"}


@pytest.mark.parametrize(
    ("operation", "result"),
    [
        ("nothing", None),
        ("array", [[0, 1, 2], [3, 4, 5]]),
        ("turned", {"vectors": [[[0, 3], [2, 5]]]}),
        ("swapped", [1, 2]),
        ("pair", [1, "two"]),
    ],
)
def test_arrays_of_every_layout_and_plain_data_are_written(caller: Caller, operation: str, result: object) -> None:
    assert ask(caller, operation).json()["result"] == result


@pytest.mark.parametrize("operation", ["set", "objects", "surrogate", "endless"])
def test_what_json_does_not_know_is_the_plugins_failure(caller: Caller, operation: str) -> None:
    answer = ask(caller, operation)
    assert answer.status_code == 500
    assert answer.json()["title"] == "Plug-in failed"
    assert answer.json()["next_step"].startswith("It must return")


def test_a_plugin_that_fails_says_so_without_a_traceback(caller: Caller) -> None:
    answer = ask(caller, "fail")
    assert answer.status_code == 500
    assert answer.json() == {
        "detail": "mine failed in fail: KeyError: 3",
        "title": "Plug-in failed",
        "next_step": "See the log.",
    }


def test_what_the_plugin_refuses_is_400(caller: Caller) -> None:
    answer = ask(caller, "refuse")
    assert answer.status_code == 400
    assert "refuse: no." in answer.json()["detail"]

"""Call: what a caller may ask of a plug-in, before it loads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from engine.errors import InvalidInput
from engine.operations.plugin import Call


class FakePlugin:
    def call(self, operation: str, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        return operation, dict(arguments)


def test_a_call_hands_on_what_it_was_given() -> None:
    call = Call("shout", {"texts": ["a"], "loud": True})
    assert call.size == 1
    assert call(FakePlugin()) == ("shout", {"texts": ["a"], "loud": True})


def test_other_objects_are_the_plugins_affair() -> None:
    thing = object()
    assert Call("take", {"thing": thing})(FakePlugin()) == ("take", {"thing": thing})


@pytest.mark.parametrize(
    "arguments",
    [{"t": "\ud800"}, {"t": ["a", "\ud800"]}, {"t": {"\udfff": 1}}, {"t": [{"a": ("\ud800",)}]}, {"\ud800": 1}],
)
def test_text_that_is_no_utf_8_is_refused_however_deep(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="UTF-8") as raised:
        Call("shout", arguments)
    assert raised.value.param == "arguments"


@pytest.mark.parametrize("arguments", [[], "a", None, {1: 2}])
def test_arguments_have_names(arguments: Any) -> None:
    with pytest.raises(InvalidInput):
        Call("shout", arguments)


@pytest.mark.parametrize("operation", [None, 3, "\ud800"])
def test_an_operation_is_a_name(operation: Any) -> None:
    with pytest.raises(InvalidInput, match="operation"):
        Call(operation)

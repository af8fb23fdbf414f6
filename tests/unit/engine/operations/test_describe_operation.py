"""A fact about a model, asked of any kind of encoder."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from engine.errors import InvalidInput
from engine.kinds import KINDS
from engine.operations.describe import Describe


def test_a_fact_is_the_adapters_own_and_a_list_becomes_plain_data() -> None:
    adapter = SimpleNamespace(dimension=3, max_tokens=None, labels=["no", "yes"], names=("a", "b"))
    assert Describe("dimension")(adapter) == 3
    assert Describe("max_tokens")(adapter) is None, "a model without such a limit"
    assert Describe("labels")(adapter) == ("no", "yes")
    assert Describe("names")(adapter) == ("a", "b")


def test_every_kind_may_be_asked_and_asking_needs_the_model() -> None:
    assert set(Describe.kinds) == set(KINDS)
    assert Describe("labels").size == 1


def test_a_fact_that_does_not_exist_is_refused_before_anything_loads() -> None:
    with pytest.raises(InvalidInput, match="fact must be one of") as refused:
        Describe("weights")
    assert refused.value.param == "fact"


def test_a_fact_that_this_kind_does_not_have_is_refused() -> None:
    with pytest.raises(InvalidInput, match="This encoder has no labels"):
        Describe("labels")(SimpleNamespace(dimension=3))

"""How long an encoder stays: every way to say it, and what becomes of it on the way to the engine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from http_fakes import Caller

from engine.engine import Engine
from engine.http.keep_alive import STAY, seconds, ttl_seconds
from engine.state import State

YEAR = 365 * 86400


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (None, None),
        (0, 0.0),
        (-0.0, 0.0),
        (30, 30.0),
        (1.5, 1.5),
        (1e-9, 1e-9),
        (YEAR, YEAR),
        (-1, STAY),
        (-0.5, STAY),
        (-(10**400), STAY),
        ("0", 0.0),
        ("-0", 0.0),
        ("0s", 0.0),
        ("30", 30.0),
        ("+30", 30.0),
        ("30s", 30.0),
        ("10m", 600.0),
        ("1h", 3600.0),
        ("1.5h", 5400.0),
        (".5h", 1800.0),
        ("1.s", 1.0),
        ("500ms", 0.5),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        ("1000000ns", 0.001),
        ("1h30m", 5400.0),
        ("1h15m30.918s", 4530.918),
        ("1m500ms", 60.5),
        ("8760h", YEAR),
        ("-1", STAY),
        ("-1s", STAY),
        ("-1h30m", STAY),
        ("-9999999h", STAY),
    ],
)
def test_a_keep_alive_means_seconds_however_it_is_said(said: object, meant: float | None) -> None:
    found = seconds(said)
    assert found == pytest.approx(meant) if meant else found == meant
    assert str(found) != "-0.0"


RUBBISH = [
    True, False, float("nan"), float("inf"), float("-inf"), [], {}, [30], "", " ", "s", "-", "+", ".", "-.s", "30 s",
    " 30s", "30s\n", "30sec", "1d", "30S", "1h30", "1h-30m", "--1", "1e3", "1e3s", "nan", "inf", "-inf", "Infinity",
    "forever", "0x10", "1_000", "1,5h", "\u0663s", "\ud800", "9" * 65, "1s" * 10_000,
]  # fmt: skip


@pytest.mark.parametrize("said", RUBBISH)
def test_rubbish_is_refused_with_the_forms_that_are_valid(said: object) -> None:
    with pytest.raises(ValueError, match=r"number of seconds, or a text such as \"30s\", \"10m\", \"1h30m\""):
        seconds(said)


@pytest.mark.parametrize("said", [YEAR + 1, 1e300, 10**400, "8761h", "9" * 64, "9" * 60 + "ms"])
def test_more_than_a_year_is_refused_with_the_way_to_say_for_ever(said: object) -> None:
    with pytest.raises(ValueError, match="at most 365 days; a negative value"):
        seconds(said)


def test_a_ttl_is_a_number_of_seconds_and_no_text() -> None:
    assert [ttl_seconds(said) for said in (None, 0, 300, 0.5, -1)] == [None, 0.0, 300.0, 0.5, STAY]
    for said in ("300", "5m", True, float("nan"), float("inf"), [], 10**400):
        with pytest.raises(ValueError, match=r"^must be (a number of seconds|at most 365 days)"):
            ttl_seconds(said)


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({}, None),
        ({"keep_alive": None}, None),
        ({"keep_alive": None, "ttl": None}, None),
        ({"keep_alive": 90}, 90.0),
        ({"keep_alive": "1m30s"}, 90.0),
        ({"keep_alive": -1}, -1.0),
        ({"ttl": 90}, 90.0),
        ({"ttl": -5}, -1.0),
        ({"keep_alive": 60, "ttl": 90}, 60.0),
        ({"keep_alive": None, "ttl": 90}, 90.0),
    ],
)
def test_what_a_request_asks_for_reaches_its_encoder(
    caller: Caller, engine: Engine, fields: dict[str, Any], kept: float | None
) -> None:
    assert caller.embed("x", **fields).status_code == 200
    assert engine.view("fake").keep_alive_seconds == kept
    assert caller.send("GET", "/admin/components").json()["components"][0]["keep_alive_seconds"] == kept


@pytest.mark.parametrize("field", ["keep_alive", "ttl"])
@pytest.mark.parametrize("value", ["soon", True, [], {"a": 1}, float("nan"), float("-inf"), YEAR + 1, 10**400])
def test_rubbish_is_400_that_names_the_field_and_loads_nothing(
    caller: Caller, engine: Engine, field: str, value: object
) -> None:
    answer = caller.raw(json.dumps({"input": "x", "keep_alive": 5, field: value}).encode())
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", field)
    assert error["message"].startswith(f"{field}: must be ")
    assert error["message"].count(".") == 1, error["message"]
    assert engine.view("fake").state is State.UNLOADED
    assert engine.view("fake").keep_alive_seconds is None

"""The native route of axes, over the real adapter and a base that is a fake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from http_fakes import Caller, FakeDense, caller_of

from engine import Engine, parse
from engine.adapters.context import AdapterContext
from engine.adapters.kinds.axes import AxesAdapter
from engine.adapters.protocol import Adapter
from engine.settings.config import EncoderConfig

ANCHORS = [{"name": "short", "anchor": "a"}, {"name": "long", "anchor": "aaaaaaaa"}]


def build(config: EncoderConfig, device: str, context: AdapterContext) -> Adapter:
    kind = AxesAdapter if config.kind == "axes" else FakeDense
    return kind(config, device, context)


@pytest.fixture
def caller() -> Iterator[Caller]:
    settings = {
        "fake": {"kind": "dense", "model": "./fake"},
        "failing": {"kind": "dense", "model": "./failing"},
        "missing": {"kind": "dense", "model": "./missing"},
        "sema": {"kind": "axes", "base": "fake", "axes": ANCHORS},
        "torn": {"kind": "axes", "base": "failing"},
        "lost": {"kind": "axes", "base": "missing"},
    }
    with Engine(parse({"encoders": settings}), adapter=build) as engine:
        yield caller_of(engine)


def axes(caller: Caller, path: str = "/encode/axes", **body: Any) -> Any:
    return caller.send("POST", path, json=body)


@pytest.mark.parametrize("path", ["/encode/axes", "/encode/sema"])
def test_coordinates_come_with_the_names_of_the_axes(caller: Caller, path: str) -> None:
    answer = axes(caller, path, texts=["a", "aaaaaaaa"])
    assert answer.status_code == 200
    body = answer.json()
    first, second = body["vectors"]
    assert first[0] == pytest.approx(1.0)
    assert second[1] == pytest.approx(1.0)
    assert first[1] == pytest.approx(second[0])
    assert (body["axes"], body["dim"], body["model"]) == (["short", "long"], 2, "sema")
    assert body["revision"].startswith("7+axes.")
    assert set(body) == {"vectors", "axes", "dim", "truncated", "model", "revision"}


def test_signatures_are_the_strongest_axes_by_name_and_weight(caller: Caller) -> None:
    body = axes(caller, texts=["aaaaaaa", "a"], top_k=1).json()
    [[long], [short]] = body["signatures"]
    assert (long["axis"], short["axis"]) == ("long", "short")
    assert long["weight"] == pytest.approx(max(body["vectors"][0]))
    assert set(long) == {"axis", "weight"}


def test_no_texts_are_no_vectors_and_load_nothing(caller: Caller) -> None:
    body = axes(caller, texts=[], top_k=3).json()
    assert (body["vectors"], body["axes"], body["dim"], body["signatures"]) == ([], [], None, [])
    components = caller.send("GET", "/admin/components").json()["components"]
    assert {one["state"] for one in components} == {"unloaded"}


@pytest.mark.parametrize(("model", "base", "waits"), [("torn", "failing", True), ("lost", "missing", False)])
def test_a_base_that_does_not_load_is_named(caller: Caller, model: str, base: str, waits: bool) -> None:
    answer = axes(caller, texts=["a"], model=model)
    assert answer.status_code == 503
    assert answer.json()["detail"].startswith(f"{model} stands on {base}: ")
    assert answer.json()["next_step"]
    assert ("retry-after" in answer.headers) is waits


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"texts": ["a"], "top_k": 0}, 400),
        ({"texts": ["a"], "top_k": "2"}, 422),
        ({"texts": ["a"], "top_k": True}, 422),
        ({"texts": ["a"], "task": "document"}, 422),
    ],
)
def test_what_cannot_be_asked_is_refused(caller: Caller, body: dict[str, Any], status: int) -> None:
    answer = axes(caller, **body)
    assert answer.status_code == status
    assert set(answer.json()) == {"detail", "title", "next_step"}

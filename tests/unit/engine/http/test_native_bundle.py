"""The native route of bundles, in front of an engine whose encoders are fakes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from http_fakes import Caller, FakeDense, caller_of

from engine import Engine, parse
from engine.adapters.context import AdapterContext
from engine.adapters.kinds.axes import AxesAdapter
from engine.adapters.protocol import Adapter
from engine.operations.sparse import SparseEncoding, SparseVector
from engine.settings.config import EncoderConfig

TABLES = {
    "fake": {"kind": "dense", "model": "./fake", "aliases": ["other-name"]},
    "splade": {"kind": "sparse", "model": "./splade"},
    "sema": {"kind": "axes", "base": "fake", "axes": [{"name": "one", "anchor": "a"}]},
}


class FakeSparse(FakeDense):
    """The words of a text, the first the heaviest."""

    def encode_sparse(
        self, inputs: Sequence[str], *, task: str | None = None, top_k: int = 128, truncate: bool = True
    ) -> Any:
        words = inputs[0].split()[:top_k]
        weights = np.asarray([1 / (place + 3) for place in range(len(words))], dtype=np.float32)
        vector = SparseVector(np.arange(len(words), dtype=np.int32), weights, tuple(words))
        return SparseEncoding((vector,), 0)


def build(config: EncoderConfig, device: str, context: AdapterContext) -> Adapter:
    kinds: dict[str, type[Any]] = {"axes": AxesAdapter, "sparse": FakeSparse}
    adapter: Adapter = kinds.get(config.kind, FakeDense)(config, device, context)
    return adapter


def served(*names: str) -> tuple[Engine, Caller]:
    engine = Engine(parse({"encoders": {name: TABLES[name] for name in names}}), adapter=build)
    return engine, caller_of(engine)


@pytest.fixture
def caller() -> Iterator[Caller]:
    engine, caller = served(*TABLES)
    with engine:
        yield caller


def bundle(caller: Caller, **body: Any) -> Any:
    return caller.send("POST", "/encode/bundle", json=body)


def test_one_text_comes_back_in_every_form(caller: Caller) -> None:
    answer = bundle(caller, text="to be or not", top_k=2)
    assert answer.status_code == 200
    body = answer.json()
    revision = body["revisions"].pop("axes")
    assert body.pop("sema") == [pytest.approx(float(np.dot(unit(12), unit(1))))]
    assert body == {
        "dense": [12.0, 0.5, -2.0],
        "dim": 3,
        "splade": {"to": 0.3333, "be": 0.25},
        "axes": ["one"],
        "models": {"dense": "fake", "sparse": "splade", "axes": "sema"},
        "revisions": {"dense": "7", "sparse": "7"},
        "model": "fake",
        "revision": "7",
        "truncated": 0,
    }
    assert list(body["splade"]) == ["to", "be"]
    assert revision.startswith("7+axes.")


def unit(length: int) -> Any:
    row = np.asarray([length, 0.5, -2.0])
    return row / np.linalg.norm(row)


def test_models_are_called_as_they_were_asked_for(caller: Caller) -> None:
    body = bundle(caller, text="a", models={"dense": "other-name", "sparse": None}).json()
    assert body["models"] == {"dense": "other-name", "sparse": "splade", "axes": "sema"}
    assert body["model"] == "other-name"


def test_what_is_not_configured_is_null() -> None:
    engine, caller = served("splade")
    with engine:
        body = bundle(caller, text="a").json()
    assert (body["dense"], body["sema"], body["axes"], body["splade"]) == (None, None, None, {"a": 0.3333})
    assert (body["models"], body["model"]) == ({"sparse": "splade"}, "splade")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"text": "a", "task": "document"}, 422),
        ({"text": "a", "top_k": 0}, 400),
        ({"text": "a", "top_k": "2"}, 422),
        ({"text": "a", "models": {"sema": "sema"}}, 400),
        ({"text": "a", "models": ["fake"]}, 422),
        ({"text": "a", "models": {"sparse": "fake"}}, 404),
    ],
)
def test_what_cannot_be_asked_is_refused(caller: Caller, body: dict[str, Any], status: int) -> None:
    answer = bundle(caller, **body)
    assert answer.status_code == status
    assert set(answer.json()) == {"detail", "title", "next_step"}


def test_a_lone_surrogate_is_no_part(caller: Caller) -> None:
    assert caller.raw(b'{"text": "a", "models": {"\\ud800": "fake"}}', "/encode/bundle").status_code == 400


def test_a_keep_alive_reaches_every_encoder(caller: Caller) -> None:
    bundle(caller, text="a", keep_alive=-1)
    components = caller.send("GET", "/admin/components").json()["components"]
    stays = {one["name"] for one in components if one["keep_alive_seconds"] == -1}
    assert stays == {"fake", "splade", "sema"}

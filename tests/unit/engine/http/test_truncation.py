"""Inputs that are longer than a model reads: refused or counted, whichever way they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from http_fakes import LONGEST, FakeAny

from engine import Embed, Engine, InvalidInput, parse
from engine.adapters.context import AdapterContext
from engine.adapters.kinds.axes import AxesAdapter
from engine.adapters.protocol import Adapter
from engine.settings.config import EncoderConfig
from engine.state import EncoderView

LONG = "a" * (LONGEST + 5)
ENCODERS: dict[str, dict[str, Any]] = {
    "dense": {"kind": "dense", "model": "./dense"},
    "twin": {"kind": "dense", "model": "./dense"},
    "sparse": {"kind": "sparse", "model": "./sparse"},
    "multi": {"kind": "multi", "model": "./multi"},
    "rerank": {"kind": "rerank", "model": "./rerank"},
    "classify": {"kind": "classify", "model": "./classify"},
    "pictures": {"kind": "image_text", "model": "./pictures"},
    "axes": {"kind": "axes", "base": "dense", "axes": [{"name": "one", "anchor": "a"}]},
}


class FakeWords(FakeAny):
    """Has a tokenizer: a text's ids are its characters."""

    tokenizer_key = "characters"
    max_tokens = LONGEST

    def tokenize(self, text: str, task: str | None = None) -> list[int]:
        return [*map(ord, text)]


def adapter(config: EncoderConfig, device: str, context: AdapterContext) -> Adapter:
    return (AxesAdapter if config.kind == "axes" else FakeWords)(config, device, context)


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(parse({"encoders": ENCODERS}), adapter=adapter) as engine:
        yield engine


def told(view: EncoderView) -> tuple[int, int]:
    return view.truncated_inputs, view.truncated_tokens


def counts(engine: Engine) -> dict[str, tuple[int, int]]:
    return {view.name: told(view) for view in engine.views() if view.truncated_inputs}


Call = Callable[..., Any]
PROXIES: dict[str, tuple[str, Callable[[Engine], Call]]] = {
    "dense": ("dense", lambda engine: lambda **more: engine.dense().encode(["a", LONG], **more)),
    "sparse": ("sparse", lambda engine: lambda **more: engine.sparse("sparse").encode(["a", LONG], **more)),
    "multi": ("multi", lambda engine: lambda **more: engine.multi().encode(["a", LONG], **more)),
    "score": ("rerank", lambda engine: lambda **more: engine.rerank().score("q", ["a", LONG], **more)),
    "re_rank": ("rerank", lambda engine: lambda **more: engine.rerank().re_rank("q", ["a", LONG], **more)),
    "splice": ("rerank", lambda engine: lambda **more: engine.rerank().splice("q", [["a", LONG]], **more)),
    "classify": ("classify", lambda engine: lambda **more: engine.classify().classify(["a", LONG], **more)),
    "texts": ("pictures.text", lambda engine: lambda **more: engine.image_text().encode_texts(["a", LONG], **more)),
}


@pytest.mark.parametrize("name", PROXIES)
def test_python_callers_get_a_cut_that_is_counted_or_an_error(engine: Engine, name: str) -> None:
    encoder, call = PROXIES[name]
    call(engine)()
    assert counts(engine) == {encoder: (1, 5)}
    call(engine)(truncate=True)
    with pytest.raises(InvalidInput, match=rf"\[1\].* has {LONGEST + 5} tokens; a fake reads {LONGEST}\."):
        call(engine)(truncate=False)
    assert counts(engine) == {encoder: (2, 10)}, "what is refused is not cut"


def test_of_zero_shot_labels_each_pair_counts(engine: Engine) -> None:
    engine.classify().zero_shot([LONG], ["x", "y"])
    assert counts(engine)["classify"][0] == 2
    with pytest.raises(InvalidInput, match=f"a fake reads {LONGEST}"):
        engine.classify().zero_shot([LONG], ["x", "y"], truncate=False)


def test_a_text_for_axes_counts_for_them_and_for_their_base(engine: Engine) -> None:
    engine.axes().encode(["a", LONG])
    engine.axes().signature("a")
    assert counts(engine) == {"dense": (1, 5), "axes": (1, 5)}
    with pytest.raises(InvalidInput, match=rf"^texts\[1\] has {LONGEST + 5} tokens") as refused:
        engine.axes().encode(["a", LONG], truncate=False)
    assert refused.value.param == "texts"
    with pytest.raises(InvalidInput, match=r"^texts\[0\]"):
        engine.axes().signature(LONG, truncate=False)


def test_a_bundle_counts_for_each_of_its_encoders_and_says_once_what_was_cut(engine: Engine) -> None:
    found = engine.bundle(LONG)
    assert (found.cut.inputs, found.cut.tokens) == (1, 5)
    assert counts(engine) == {"dense": (1, 5), "sparse": (1, 5), "axes": (1, 5)}
    assert engine.bundle("a").cut.inputs == 0
    for models in ({}, {"dense": "multi", "sparse": "multi"}, {"dense": "twin"}):
        with pytest.raises(InvalidInput, match=rf"^text has {LONGEST + 5} tokens") as refused:
            engine.bundle(LONG, truncate=False, models=models)
        assert refused.value.param == "text"
    engine.bundle(LONG, models={"dense": "multi", "sparse": "multi"})
    assert counts(engine)["multi"] == (1, 5)


def test_of_encoders_on_the_same_weights_each_counts_its_own(engine: Engine) -> None:
    engine.dense("twin").encode([LONG])
    assert counts(engine) == {"twin": (1, 5)}


def test_a_count_outlasts_the_weights_and_ends_with_another_model(engine: Engine) -> None:
    engine.dense().encode([LONG])
    engine.unload("dense")
    engine.dense().encode([LONG])
    assert told(engine.view("dense")) == (2, 10)
    engine.apply(parse({"encoders": {**ENCODERS, "dense": {"kind": "dense", "model": "./dense", "default": True}}}))
    assert told(engine.view("dense")) == (2, 10)
    engine.apply(parse({"encoders": {**ENCODERS, "dense": {"kind": "dense", "model": "./another"}}}))
    assert told(engine.view("dense")) == (0, 0)


def test_an_answer_says_what_was_cut(engine: Engine) -> None:
    answer = engine.ask(None, Embed(["a", LONG, LONG])).result()
    assert (answer.cut.inputs, answer.cut.tokens) == (2, 10)

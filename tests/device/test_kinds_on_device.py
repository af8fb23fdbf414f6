"""Every kind with torch weights on a device that is not there: the CPU's results, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import image_text_models
import multi_models
import numpy as np
import pair_models
import picture_files
import pytest
import small_models
import sparse_models
from fake_device import Card

from engine import Engine, State, parse

TEXTS: Final = ["a pilot light", "an encoder turns a text into a vector", "x"]
PICTURES: Final = [picture_files.written(picture_files.picture(seed=seed)) for seed in range(3)]

Ask = Callable[[Engine], list[Any]]


def clip(folder: Path) -> Path:
    return image_text_models.image_text_model(folder, "clip")


KINDS: Final[dict[str, tuple[str, Callable[[Path], Path], Ask]]] = {
    "dense": ("dense", small_models.bert, lambda engine: [engine.dense("x").encode(TEXTS)]),
    "sparse": (
        "sparse",
        sparse_models.splade,
        lambda engine: [vector.weights for vector in engine.sparse("x").encode(TEXTS, top_k=5)],
    ),
    "multi": (
        "multi",
        multi_models.m3,
        lambda engine: [(found := engine.multi("x").encode(TEXTS)).dense, *(found.colbert or ())],
    ),
    "rerank": ("rerank", pair_models.cross_encoder, lambda engine: [engine.rerank("x").score("a", TEXTS)]),
    "classify": ("classify", pair_models.deberta, lambda engine: [engine.classify("x").classify(TEXTS).probabilities]),
    "texts of image_text": ("image_text", clip, lambda engine: [engine.image_text("x").encode_texts(TEXTS)]),
    "images of image_text": ("image_text", clip, lambda engine: [engine.image_text("x").encode_images(PICTURES)]),
}


def engine_on(device: str, kind: str, folder: Path) -> Engine:
    hardware = {"device": "cpu", "idle_timeout_seconds": 0}
    engine = Engine(parse({"hardware": hardware, "encoders": {"x": {"kind": kind, "model": str(folder)}}}))
    if device != "cpu":
        # No settings file may name a device that only tests have.
        from dataclasses import replace

        config = engine.config
        engine.close()
        return Engine(replace(config, hardware=replace(config.hardware, device=device)))
    return engine


@pytest.mark.parametrize("what", KINDS)
def test_each_kind_computes_there_what_it_does_on_the_cpu_and_leaves_nothing(
    card: Card, tmp_path: Path, what: str
) -> None:
    kind, make, ask = KINDS[what]
    folder = make(tmp_path / "model")
    with engine_on("cpu", kind, folder) as engine:
        wanted = ask(engine)
    with engine_on("fakegpu:0", kind, folder) as engine:
        for found, expected in zip(ask(engine), wanted, strict=True):
            assert np.abs(np.asarray(found) - np.asarray(expected)).max() <= 1e-5
        [up] = [view for view in engine.views() if view.state is State.ON_DEVICE]
        assert (up.device, up.bytes_on_device) == ("fakegpu:0", card.live)
        assert card.live > 0
        assert engine.offload(up.name).state is State.IN_RAM
        assert card.live == 0
        again = ask(engine)
        assert all(np.array_equal(one, other) for one, other in zip(ask(engine), again, strict=True))
        assert engine.unload(up.name).state is State.UNLOADED
    assert card.live == 0

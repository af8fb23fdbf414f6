"""Every kind with torch weights: how a small model of it is made, and something to ask of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import image_text_models
import multi_models
import pair_models
import picture_files
import small_models
import sparse_models

from engine import Engine, parse

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
    """An engine with the encoder `x`, on a device that no settings file may name, too."""
    config = parse({"hardware": {"idle_timeout_seconds": 0}, "encoders": {"x": {"kind": kind, "model": str(folder)}}})
    return Engine(replace(config, hardware=replace(config.hardware, device=device)))

"""The models that the cases run, the CPU's vectors to compare with, and engines on the GPU."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from measured import GIB, Gpu

from engine import Config, EncoderConfig, Engine, Hardware

NAME = "encoder"
TEXTS = ["a pilot light", "Was kostet ein Liter Öl?", "an encoder turns a text into a vector " * 20]

PIECES = 8_000
"""Pieces of XLM-R-large's tokenizer: with all 250,002 each load takes seconds longer, and none of them is used here."""


@dataclass(frozen=True)
class Subject:
    """A model, and the vectors that the CPU gives for TEXTS."""

    name: str
    model: str
    wanted: np.ndarray
    total: int
    """Bytes of its weights in float32."""


_known: dict[str, Subject] = {}


def subject_named(name: str, gpu: Gpu) -> Subject:
    """Return `minilm` or `xlm-r-large`, which is made at the first call; skips the test where it has no room."""
    if name not in _known:
        model = "builtin:all-MiniLM-L6-v2" if name == "minilm" else str(_xlm_r_large(gpu))
        config = EncoderConfig(name=NAME, kind="dense", model=model)
        with Engine(Config(hardware=Hardware(device="cpu"), encoders=(config,))) as engine:
            wanted = engine.dense(NAME).encode(TEXTS)
            total = engine.view(NAME).bytes_total
        assert total is not None
        _known[name] = Subject(name, model, wanted, total)
    return _known[name]


def engine_on(gpu: Gpu, subject: Subject, encoder: dict[str, Any] | None = None, **hardware: Any) -> Engine:
    """Return an engine with one encoder, which leaves the GPU only when it is told to; started by `with`."""
    quiet: dict[str, Any] = {"idle_timeout_seconds": 0, "keep_free_vram": 0, "minimum_residency_seconds": 0}
    config = EncoderConfig(name=NAME, kind="dense", model=subject.model, **(encoder or {}))
    settings = Hardware(**quiet | {"device": gpu.device} | hardware)
    return Engine(Config(hardware=settings, encoders=(config,)))


def _xlm_r_large(gpu: Gpu) -> Path:
    if gpu.free() < 4 * GIB:
        pytest.skip(f"XLM-R-large needs 4 GiB of free VRAM, there are {gpu.free() / GIB:.1f}")
    models.FOLDER.mkdir(parents=True, exist_ok=True)
    made = any(models.FOLDER.glob(f"xlm-r-large-{PIECES}-pieces-float32-*"))
    if not made and shutil.disk_usage(models.FOLDER).free < 6 * GIB:
        pytest.skip(f"XLM-R-large needs 6 GiB of room in {models.FOLDER}")
    return models.xlm_r_large(pieces=PIECES)

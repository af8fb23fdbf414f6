"""The models that the cases run, and the CPU's vectors to compare with."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import models
import numpy as np
import pytest
from measured import GIB, Gpu

from engine import Config, EncoderConfig, Engine, Hardware

NAME = "encoder"
TEXTS = ["a pilot light", "Was kostet ein Liter Öl?", "an encoder turns a text into a vector " * 20]


@dataclass(frozen=True)
class Subject:
    """A model, and the vectors that the CPU gives for TEXTS."""

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
        _known[name] = Subject(model, wanted, total)
    return _known[name]


def _xlm_r_large(gpu: Gpu) -> Path:
    if gpu.free() < 4 * GIB:
        pytest.skip(f"XLM-R-large needs 4 GiB of free VRAM, there are {gpu.free() / GIB:.1f}")
    models.FOLDER.mkdir(parents=True, exist_ok=True)
    if not list(models.FOLDER.glob("xlm-r-large-float32-*")) and shutil.disk_usage(models.FOLDER).free < 6 * GIB:
        pytest.skip(f"XLM-R-large needs 6 GiB of room in {models.FOLDER}")
    return models.xlm_r_large()

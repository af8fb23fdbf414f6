"""Encoding in batches with all the VRAM there is, or block by block within a part of the weights' bytes.

Each budget has a process of its own.
"""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path
from typing import Any

import card
import models
from gpu_ways import engine
from ladder import MIB, MODELS, NAME, Figures

SHARES = {"resident": None, "1/1": 1.0, "1/2": 0.5, "1/4": 0.25}


def batch(texts: int, words: int) -> list[str]:
    """Return different texts of the models' own words."""
    known = models.TEXT.split()
    return [" ".join(known[(start + at) % len(known)] for at in range(words)) for start in range(texts)]


streaming: Any  # the engine of the process that this is


def begin(share: float | None, name: str, folder: Path, weights: int, device: str) -> None:
    global streaming
    budget = {} if share is None else {"max_vram": f"{share * weights / 2**30:.6f}", "stream_layers": True}
    streaming = engine(MODELS[name], folder, device, {}, budget)


def turn(device: str, uses: int, texts: list[str]) -> Figures:
    """Encode `uses` batches after one that nobody times; then rest."""
    proxy = streaming.dense(NAME)
    proxy.encode(texts)
    card.module(device).synchronize(device)
    card.module(device).reset_peak_memory_stats(device)
    times = []
    for _ in range(uses):
        milliseconds, vectors = card.timed(device, partial(proxy.encode, texts))
        times.append(milliseconds)
    view = streaming.view(NAME)
    figures = {
        "batch_ms": statistics.median(times),
        "peak": card.module(device).max_memory_reserved(device) / MIB,
        "on_device": (view.bytes_on_device or 0) / MIB,
        "where": view.device,
        "note": view.note,
        "vectors": vectors,
    }
    streaming.unload(NAME)
    return figures

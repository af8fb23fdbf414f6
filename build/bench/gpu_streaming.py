"""Encoding in batches with all the VRAM there is, or block by block within a part of the weights' bytes.

Each budget has its turn in one process, with an engine of its own that is closed before the next one.
"""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path
from typing import Any

import card
import models
from gpu_ways import engine
from ladder import MIB, NAME, Figures, Model

SHARES = {"resident": None, "1/1": 1.0, "1/2": 0.5, "1/4": 0.25}


def batch(texts: int, words: int) -> list[str]:
    """Return different texts of the models' own words."""
    known = models.TEXT.split()
    return [" ".join(known[(start + at) % len(known)] for at in range(words)) for start in range(texts)]


def turn(
    share: float | None, model: Model, folder: Path, nbytes: int, device: str, uses: int, texts: list[str]
) -> Figures:
    """Encode `uses` batches after one that is not timed, within `share` of the weights' `nbytes`."""
    budget = None if share is None else share * nbytes
    limits: dict[str, Any] = {}
    if budget is not None:
        limits = {"max_vram": f"{budget / 2**30:.6f}", "stream_layers": True}
    streaming = engine(model, folder, device, {}, **limits)
    try:
        proxy = streaming.dense(NAME)
        proxy.encode(texts)
        card.module(device).synchronize(device)
        card.module(device).reset_peak_memory_stats(device)
        times = []
        for _ in range(uses):
            milliseconds, vectors = card.timed(device, partial(proxy.encode, texts))
            times.append(milliseconds)
        view = streaming.view(NAME)
        return {
            "budget": None if budget is None else budget / MIB,
            "batch_ms": statistics.median(times),
            "peak": card.module(device).max_memory_reserved(device) / MIB,
            "on_device": (view.bytes_on_device or 0) / MIB,
            "where": view.device,
            "note": view.note,
            "vectors": vectors,
        }
    finally:
        streaming.close()

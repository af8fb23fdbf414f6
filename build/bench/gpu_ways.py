"""The ways of stepping down and coming back that gpu.py compares, and the bus; all in one process, one after another.

A way holds weights on the GPU only while its turn lasts.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import card
import models
from ladder import MIB, NAME, Figures, Model

BUS_BYTES = 256 * MIB
BUS_COPIES = 10


class Way(Protocol):
    """One way to step down and to come back."""

    def back(self) -> None:
        """Bring the weights to the GPU."""

    def encode(self) -> bytes:
        """Return the text's vector."""

    def down(self) -> None:
        """Take the weights from the GPU and give its memory back."""

    def end(self) -> None:
        """Hold nothing any more, in RAM neither."""


class Ours:
    """Our engine, with `home` as named."""

    def __init__(self, home: str, model: Model, folder: Path, device: str) -> None:
        self.engine = engine(model, folder, device, {"home": home})
        self.proxy = self.engine.dense(NAME)

    def back(self) -> None:
        self.engine.load(NAME)

    def encode(self) -> bytes:
        return self.proxy.encode([models.TEXT])[0].tobytes()

    def down(self) -> None:
        outcome = self.engine.offload(NAME)
        if outcome.result != "done":
            raise SystemExit(f"the step down ended with {outcome}")

    def end(self) -> None:
        self.engine.close()


class LoadAgain:
    """Drop the model, and load it from its files when it is needed."""

    def __init__(self, model: Model, folder: Path, device: str) -> None:
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        self.load = partial(SentenceTransformer, str(folder), device=device, local_files_only=True)
        self.device = device
        self.model: Any = None

    def back(self) -> None:
        self.model = self.load()

    def encode(self) -> bytes:
        return self.model.encode([models.TEXT], show_progress_bar=False)[0].tobytes()

    def down(self) -> None:
        self.model = None
        gc.collect()
        card.module(self.device).empty_cache()

    def end(self) -> None:
        LoadAgain.down(self)


class Moves(LoadAgain):
    """Move the model between the GPU and RAM."""

    def back(self) -> None:
        if self.model is None:
            super().back()
        else:
            self.model.to(self.device)

    def down(self) -> None:
        self.model.to("cpu")
        card.module(self.device).empty_cache()


WAYS: dict[str, Callable[[Model, Path, str], Way]] = {
    "mapped": partial(Ours, "mapped"),
    "pinned": partial(Ours, "pinned"),
    ".to": Moves,
    "load again": LoadAgain,
}


def engine(model: Model, folder: Path, device: str, encoder: Figures, **hardware: Any) -> Any:
    """Return a started engine with one dense encoder, which steps down only when it is told to."""
    from engine import Config, EncoderConfig, Engine, Hardware

    config = EncoderConfig(name=NAME, kind="dense", model=model.reference or str(folder), **encoder)
    # Other programs on the GPU must not make it step down in the middle of a measurement.
    settings = Hardware(device=device, idle_timeout_seconds=0, keep_free_vram=0, **hardware)
    started = Engine(Config(hardware=settings, encoders=(config,)))
    started.start()
    return started


def turn(way: Way, device: str, judge: card.Judge, uses: int) -> Figures:
    """Come back, encode `uses` times, step down and come back again; timed but for the first."""
    way.back()
    vectors = {way.encode()}
    steady = []
    for _ in range(uses):
        milliseconds, vector = card.timed(device, way.encode)
        steady.append(milliseconds)
        vectors.add(vector)
    before = held(device, judge)
    down, _ = card.timed(device, way.down)
    after = held(device, judge)
    back, _ = card.timed(device, way.back)
    first, vector = card.timed(device, way.encode)
    way.down()
    return {
        "down_ms": down,
        "back_ms": back,
        "first_ms": first,
        "steady_ms": statistics.median(steady),
        "vectors": vectors | {vector},
        **{f"{key}_before": value for key, value in before.items()},
        **{f"{key}_after": value for key, value in after.items()},
    }


def held(device: str, judge: card.Judge) -> Figures:
    """Return the MiB that torch's allocator has from the driver, and those that NVML sees of this process."""
    seen = judge.of_process()
    return {
        "torch": card.module(device).memory_reserved(device) / MIB,
        "nvml": None if seen is None else seen / MIB,
    }


class Bus:
    """Copies from pinned memory to the GPU, as fast as one large copy goes."""

    def __init__(self, device: str) -> None:
        import torch

        self.device = device
        self.source = torch.ones(BUS_BYTES, dtype=torch.uint8).pin_memory()

    def rate(self) -> float:
        """Return GB/s."""
        import torch

        target = torch.empty(BUS_BYTES, dtype=torch.uint8, device=self.device)
        copy = partial(target.copy_, self.source, non_blocking=True)
        times = [card.timed(self.device, copy)[0] for _ in range(BUS_COPIES)]
        return card.gigabytes_per_second(BUS_BYTES, statistics.median(times))

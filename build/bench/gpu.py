"""Stepping down, coming back and streaming on a real GPU: ours, beside `.to()` and loading again, beside the bus.

Each way has a process of its own and takes its turn in every round; between its turns it holds no weights on the GPU:

- mapped, pinned: our Engine with `home` so; down is `engine.offload(name)`, back is `engine.load(name)`
- .to: sentence-transformers; down is `.to("cpu")`, back is `.to("cuda")`
- load again: sentence-transformers; down is `del` and `gc.collect()`, back is a new SentenceTransformer on the GPU
- the bus: copies of 256 MiB from pinned memory to the GPU, as fast as one big copy goes

All of them end a step down by emptying torch's cache, and every time is taken after the GPU has done its work. Then
streaming: an engine with all the VRAM it wants, and others with `max_vram` at 1/1, 1/2 and 1/4 of the weights.

Prints per model, as medians over the rounds: milliseconds of the step down, of coming back and of the first vector
after it; GB/s (10^9 bytes of weights over the time of coming back) and their share of the bus; MiB that torch holds and
that NVML sees of the process before and after the step down; whether vectors are bit-identical. Then milliseconds of a
batch at each budget, the most that torch held, and how far the vectors are from the resident ones. A table of all that
counts ends it. Without a GPU it says so and ends.

    python3 build/dev.py bench --gpu [-- --rounds 5 --models minilm,bert-base,xlm-r-large]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import card
import gpu_streaming
import gpu_ways
import models
from ladder import MIB, MODELS, Figures, in_a_process, process


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--uses", type=int, default=5, help="encodes in steady use, per round")
    parser.add_argument("--texts", type=int, default=32, help="texts in a batch, for streaming")
    parser.add_argument("--words", type=int, default=64, help="words in each of them")
    parser.add_argument("--models", default="minilm,bert-base,xlm-r-large", help="with float32 files, of ladder.py's")
    parser.add_argument("--folder", type=Path, default=models.FOLDER, help="where the random models are kept")
    options = parser.parse_args()
    names = options.models.split(",")
    if unknown := {name for name in names if name not in MODELS or MODELS[name].converted}:
        parser.error(f"no such model: {', '.join(sorted(unknown))}")
    if reason := card.missing():
        print(f"No GPU to measure on: {reason}.")
        return 0
    device = in_a_process(card.pick)
    print(f"{in_a_process(card.describe, device)}\n", flush=True)
    texts = gpu_streaming.batch(options.texts, options.words)
    lines = []
    with tempfile.TemporaryDirectory(prefix="pilotlight-bench-") as cache:
        os.environ |= {"XDG_CACHE_HOME": cache, "HF_HUB_OFFLINE": "1"}
        for name in names:
            folder = in_a_process(MODELS[name].folder, options.folder)
            for file in folder.rglob("*.safetensors"):
                models.settle(file)
            found = measure(name, folder, device, options.rounds, options.uses)
            show(name, weights(folder), found)
            streamed = measure_streaming(name, folder, device, options.rounds, options.uses, texts)
            show_streaming(name, streamed)
            lines += [*summary(name, found), *summary_of_streaming(name, streamed)]
    print("\n".join(lines))
    return 0


def weights(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))


def measure(name: str, folder: Path, device: str, rounds: int, uses: int) -> dict[str, Figures]:
    """Return each way's figures, with the vectors of all rounds as one set and GB/s beside those of the bus."""
    turns: dict[str, list[Figures]] = {title: [] for title in gpu_ways.WAYS}
    copies = []
    with ExitStack() as ends:
        pools = {title: ends.enter_context(process()) for title in gpu_ways.WAYS}
        lane = ends.enter_context(process())
        for title, pool in pools.items():
            pool.submit(gpu_ways.begin, title, name, folder, device).result()
        order = list(gpu_ways.WAYS)
        for _ in range(rounds):
            copies.append(lane.submit(gpu_ways.bus, device).result())
            for title in order:
                turns[title].append(pools[title].submit(gpu_ways.turn, device, uses).result())
            order.append(order.pop(0))
    found = {title: merged(figures) for title, figures in turns.items()}
    for figures in found.values():
        figures["bus"] = statistics.median(copies)
        figures["rate"] = card.gigabytes_per_second(weights(folder), figures["back_ms"])
        figures["share"] = 100 * figures["rate"] / figures["bus"]
    return found


def measure_streaming(
    name: str, folder: Path, device: str, rounds: int, uses: int, texts: list[str]
) -> dict[str, Figures]:
    """Return the figures at each budget, with the largest error of all rounds beside the resident vectors."""
    nbytes = weights(folder)
    turns: dict[str, list[Figures]] = {title: [] for title in gpu_streaming.SHARES}
    with ExitStack() as ends:
        pools = {title: ends.enter_context(process()) for title in gpu_streaming.SHARES}
        for title, share in gpu_streaming.SHARES.items():
            pools[title].submit(gpu_streaming.begin, share, name, folder, nbytes, device).result()
        for _ in range(rounds):
            for title, pool in pools.items():
                turns[title].append(pool.submit(gpu_streaming.turn, device, uses, texts).result())
    wanted = turns["resident"][0]["vectors"]
    found = {}
    for title, share in gpu_streaming.SHARES.items():
        figures = turns[title]
        found[title] = figures[-1] | {
            "batch_ms": statistics.median(each["batch_ms"] for each in figures),
            "peak": max(each["peak"] for each in figures),
            "budget": None if share is None else share * nbytes / MIB,
            "error": max(furthest(each["vectors"], wanted) for each in figures),
        }
    for figures in found.values():
        figures["slower"] = figures["batch_ms"] / found["resident"]["batch_ms"]
    return found


def furthest(vectors: Any, wanted: Any) -> float:
    """Return the largest relative error of one of the vectors, (n, d) both."""
    import numpy as np

    return float((np.linalg.norm(vectors - wanted, axis=1) / np.linalg.norm(wanted, axis=1)).max())


def merged(turns: list[Figures]) -> Figures:
    figures: Figures = {}
    for key in turns[0]:
        values = [found[key] for found in turns]
        if key == "vectors":
            figures[key] = set().union(*values)
        else:
            figures[key] = None if None in values else statistics.median(values)
    return figures


ROWS = {
    "step down, ms": "down_ms",
    "come back, ms": "back_ms",
    "  GB/s": "rate",
    "  % of the bus": "share",
    "first vector after it, ms": "first_ms",
    "steady encode, ms": "steady_ms",
    "torch holds before, MiB": "torch_before",
    "torch holds after, MiB": "torch_after",
    "NVML sees before, MiB": "nvml_before",
    "NVML sees after, MiB": "nvml_after",
}

STREAMING_ROWS = {
    "budget, MiB": "budget",
    "weights on the GPU, MiB": "on_device",
    "torch held at most, MiB": "peak",
    "batch, ms": "batch_ms",
    "  times the resident": "slower",
}


def show(name: str, nbytes: int, found: dict[str, Figures]) -> None:
    title = f"{name}, {nbytes / MIB:.0f} MiB"
    print_table(title, ROWS, found)
    for way_title, figures in found.items():
        same = "all vectors identical" if len(figures["vectors"]) == 1 else f"{len(figures['vectors'])} vectors"
        print(f"{way_title}: {same}")
    distinct = len(set().union(*(figures["vectors"] for figures in found.values())))
    print(f"vectors of all ways together: {distinct}; the bus: {found['mapped']['bus']:.1f} GB/s\n", flush=True)


def show_streaming(name: str, found: dict[str, Figures]) -> None:
    print_table(f"{name}, streamed at", STREAMING_ROWS, found)
    for title, figures in found.items():
        note = f"; {figures['note']}" if figures["note"] else ""
        print(f"{title}: on {figures['where']}, vectors within {figures['error']:.1e} of the resident ones{note}")
    print(flush=True)


def print_table(title: str, rows: dict[str, str], found: dict[str, Figures]) -> None:
    print(f"{title:38}" + "".join(f"{column:>12}" for column in found))
    for label, key in rows.items():
        cells = (figures[key] for figures in found.values())
        print(f"{label:38}" + "".join(f"{'-' if value is None else format(value, '.1f'):>12}" for value in cells))


def summary(name: str, found: dict[str, Figures]) -> Iterator[str]:
    for title, figures in found.items():
        yield (
            f"{name + ', ' + title:30} down {figures['down_ms']:9.1f} ms   back {figures['back_ms']:9.1f} ms"
            f"  {figures['rate']:7.2f} GB/s  {figures['share']:6.1f} % of the bus"
        )


def summary_of_streaming(name: str, found: dict[str, Figures]) -> Iterator[str]:
    for title, figures in found.items():
        yield (
            f"{name + ', streamed ' + title:30} batch {figures['batch_ms']:8.1f} ms"
            f"   at most {figures['peak']:6.0f} MiB  {figures['slower']:7.2f} times the resident time"
        )


if __name__ == "__main__":
    sys.exit(main())

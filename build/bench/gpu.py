"""Stepping down, coming back and streaming on a real GPU: ours, beside `.to()` and loading again, beside the bus.

Each way takes its turn in every round, all in one process; between its turns it holds no weights on the GPU:

- mapped, pinned: our Engine with `home` so; down is `engine.offload(name)`, back is `engine.load(name)`
- .to: sentence-transformers; down is `.to("cpu")`, back is `.to("cuda")`
- load again: sentence-transformers; down is `del` and `gc.collect()`, back is a new SentenceTransformer on the GPU
- the bus: copies of 256 MiB from pinned memory to the GPU, as fast as one large copy goes

All of them end a step down by emptying torch's cache, and every time is taken after the GPU has done its work. A way
that leaves bytes on the GPU after its turn is named in a line of its own. Then streaming: an engine with all the VRAM
that it can use, and others with `max_vram` at 1/1, 1/2 and 1/4 of the weights, one after another.

Prints each turn when it is over, and per model, as medians over the rounds: milliseconds of the step down, of coming
back and of the first vector after it; GB/s (10^9 bytes of weights over the time of coming back) and their share of the
bus; MiB that torch holds and that NVML sees of the process before and after the step down (what the process itself
needs on a GPU is in both); whether vectors are bit-identical. Then milliseconds of a batch at each budget, the most
that torch held, and how far the vectors are from the resident ones. A summary ends it. Without a GPU it says so and
ends.

    python3 build/dev.py bench --gpu [-- --rounds 3 --models minilm,bert-base,xlm-r-large]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import card
import gpu_streaming
import gpu_ways
import models
from ladder import MIB, MODELS, Figures

say = partial(print, flush=True)  # a run that is cut short has shown what it had


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--uses", type=int, default=5, help="encodes in steady use, per round")
    parser.add_argument("--texts", type=int, default=32, help="texts in a batch, for streaming")
    parser.add_argument("--words", type=int, default=64, help="words in each of them")
    parser.add_argument("--models", default="minilm,xlm-r-large", help="with float32 files, of ladder.py's")
    parser.add_argument("--folder", type=Path, default=models.FOLDER, help="where the random models are kept")
    options = parser.parse_args()
    names = options.models.split(",")
    if unknown := {name for name in names if name not in MODELS or MODELS[name].converted}:
        parser.error(f"no such model: {', '.join(sorted(unknown))}")
    if reason := card.missing():
        say(f"No GPU to measure on: {reason}.")
        return 0
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="pilotlight-bench-") as cache:
        os.environ |= {"XDG_CACHE_HOME": cache, "HF_HUB_OFFLINE": "1"}
        device = card.pick()
        say(f"{card.describe(device)}\n")
        lines = run(names, device, options)
    say("\n".join(lines))
    say(f"all of it took {time.perf_counter() - began:.0f} s")
    return 0


def run(names: list[str], device: str, options: argparse.Namespace) -> list[str]:
    """Measure the models one after another and return the lines of the summary."""
    bus, judge = gpu_ways.Bus(device), card.Judge(device)
    texts = gpu_streaming.batch(options.texts, options.words)
    lines: list[str] = []
    for name in names:
        began = time.perf_counter()
        folder = MODELS[name].folder(options.folder)
        for file in folder.rglob("*.safetensors"):
            models.settle(file)
        nbytes = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
        say(f"{name}: {nbytes / MIB:.0f} MiB, files ready after {time.perf_counter() - began:.1f} s")
        found = measure(name, folder, nbytes, bus, judge, options)
        show(name, nbytes, found)
        streamed = measure_streaming(name, folder, nbytes, device, options.rounds * options.uses, texts)
        show_streaming(name, streamed)
        lines += [*summary(name, found), *summary_of_streaming(name, streamed)]
    return lines


def measure(
    name: str, folder: Path, nbytes: int, bus: gpu_ways.Bus, judge: card.Judge, options: argparse.Namespace
) -> dict[str, Figures]:
    """Return each way's figures, with the vectors of all rounds as one set and GB/s beside those of the bus."""
    device = bus.device
    turns: dict[str, list[Figures]] = {title: [] for title in gpu_ways.WAYS}
    ways = {title: make(MODELS[name], folder, device) for title, make in gpu_ways.WAYS.items()}
    copies = []
    order = list(ways)
    for number in range(options.rounds):
        copies.append(bus.rate())
        for title in order:
            began, free = time.perf_counter(), card.cleared(device)
            figures = gpu_ways.turn(ways[title], device, judge, options.uses)
            turns[title].append(figures)
            say(
                f"  round {number + 1}, {title}: down {figures['down_ms']:.1f} ms, back {figures['back_ms']:.1f} ms,"
                f" first vector {figures['first_ms']:.1f} ms ({time.perf_counter() - began:.1f} s)"
            )
            report_left(title, card.cleared(device) - free)
        order.append(order.pop(0))
    for way in ways.values():
        way.end()
    report_left("all ways", card.cleared(device))
    found = {title: merged(figures) for title, figures in turns.items()}
    for figures in found.values():
        figures["bus"] = statistics.median(copies)
        figures["rate"] = card.gigabytes_per_second(nbytes, figures["back_ms"])
        figures["share"] = 100 * figures["rate"] / figures["bus"]
    return found


def measure_streaming(
    name: str, folder: Path, nbytes: int, device: str, uses: int, texts: list[str]
) -> dict[str, Figures]:
    """Return the figures at each budget, with the largest error beside the resident vectors."""
    found: dict[str, Figures] = {}
    for title, share in gpu_streaming.SHARES.items():
        began, free = time.perf_counter(), card.cleared(device)
        figures = gpu_streaming.turn(share, MODELS[name], folder, nbytes, device, uses, texts)
        resident = found.get("resident", figures)
        figures["error"] = furthest(figures["vectors"], resident["vectors"])
        figures["slower"] = figures["batch_ms"] / resident["batch_ms"]
        found[title] = figures
        say(f"  streamed, {title}: batch {figures['batch_ms']:.1f} ms ({time.perf_counter() - began:.1f} s)")
        report_left(title, card.cleared(device) - free)
    return found


def report_left(title: str, nbytes: int) -> None:
    """Print how much is on the GPU that was not there before."""
    if nbytes > 0:
        say(f"  {title} left {nbytes / MIB:.1f} MiB on the GPU")


def furthest(vectors: Any, wanted: Any) -> float:
    """Return the largest relative error of one of the vectors, (n, d) both."""
    import numpy as np

    return float((np.linalg.norm(vectors - wanted, axis=1) / np.linalg.norm(wanted, axis=1)).max())


def merged(turns: list[Figures]) -> Figures:
    """Return the medians, and the vectors of all rounds as one set."""
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
    """Print the table of the ways."""
    print_table(f"{name}, {nbytes / MIB:.0f} MiB", ROWS, found)
    for title, figures in found.items():
        same = "all vectors identical" if len(figures["vectors"]) == 1 else f"{len(figures['vectors'])} vectors"
        print(f"{title}: {same}")
    distinct = len(set().union(*(figures["vectors"] for figures in found.values())))
    say(f"vectors of all ways together: {distinct}; the bus: {found['mapped']['bus']:.1f} GB/s\n")


def show_streaming(name: str, found: dict[str, Figures]) -> None:
    """Print the table of the budgets."""
    print_table(f"{name}, streamed at", STREAMING_ROWS, found)
    for title, figures in found.items():
        note = f"; {figures['note']}" if figures["note"] else ""
        print(f"{title}: on {figures['where']}, vectors within {figures['error']:.1e} of the resident ones{note}")
    say()


def print_table(title: str, rows: dict[str, str], found: dict[str, Figures]) -> None:
    """Print one column per way and one line per row."""
    print(f"{title:38}" + "".join(f"{column:>12}" for column in found))
    for label, key in rows.items():
        cells = (figures[key] for figures in found.values())
        print(f"{label:38}" + "".join(f"{'-' if value is None else format(value, '.1f'):>12}" for value in cells))


def summary(name: str, found: dict[str, Figures]) -> Iterator[str]:
    """Yield the line of each way."""
    for title, figures in found.items():
        yield (
            f"{name + ', ' + title:30} down {figures['down_ms']:9.1f} ms   back {figures['back_ms']:9.1f} ms"
            f"  {figures['rate']:7.2f} GB/s  {figures['share']:6.1f} % of the bus"
        )


def summary_of_streaming(name: str, found: dict[str, Figures]) -> Iterator[str]:
    """Yield the line of each budget."""
    for title, figures in found.items():
        yield (
            f"{name + ', streamed ' + title:30} batch {figures['batch_ms']:8.1f} ms"
            f"   at most {figures['peak']:6.0f} MiB  {figures['slower']:7.2f} times the resident time"
        )


if __name__ == "__main__":
    sys.exit(main())

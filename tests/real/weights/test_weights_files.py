"""Weights files that change under a running engine: noticed before their pages are touched, and the vectors right."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import ROOT
from small_models import xlm_roberta
from weights_bench import Bench, copied, expected, is_mapped, replace_file, rewrite_file, weights

from engine import State, Unavailable

RUNGS = [State.ON_DEVICE, State.IN_RAM]


def smaps(*paths: Path) -> int:
    """Resident bytes that smaps counts for the mappings of these files."""
    names = {str(path.resolve()) for path in paths}
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = line.partition("/")[1] + line.partition("/")[2] in names
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


# The source changes between two uses


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("change", [replace_file, rewrite_file])
@pytest.mark.parametrize(
    "how",
    [{}, {"dtype": "float16"}, {"layout": "sharded"}, {"layout": "bin"}],
    ids=["float32", "float16", "sharded", "bin"],
)
def test_a_file_with_other_weights_is_loaded_at_the_next_use(
    how: dict[str, Any],
    change: Callable[[Path, Path], None],
    rung: State,
    models: Callable[..., Path],
    over: Callable[[Path], Bench],
    tmp_path: Path,
) -> None:
    bench = over(copied(models(**how), tmp_path / "model"))
    bench.on(rung)
    assert np.array_equal(bench.vectors(), expected(bench.folder))
    bench.on(rung)
    change(weights(bench.folder), weights(models(**how, seed=1)))
    after = bench.vectors()
    assert np.array_equal(after, expected(bench.folder))
    assert not np.allclose(after, expected(models(**how)), atol=1e-3)
    assert bench.loads == 2
    bench.vectors()
    assert bench.loads == 2, "and then it is the same file"


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("how", [{}, {"dtype": "bfloat16"}], ids=["float32", "bfloat16"])
def test_a_file_that_was_touched_is_loaded_again(
    how: dict[str, Any], rung: State, models: Callable[..., Path], over: Callable[[Path], Bench], tmp_path: Path
) -> None:
    bench = over(copied(models(**how), tmp_path / "model"))
    bench.on(rung)
    before = bench.vectors()
    bench.on(rung)
    os.utime(weights(bench.folder))
    assert np.array_equal(bench.vectors(), before)
    assert bench.loads == 2


@pytest.mark.parametrize("rung", RUNGS)
def test_a_deleted_file_is_a_clear_failure_until_it_is_back(
    rung: State, models: Callable[..., Path], over: Callable[[Path], Bench], tmp_path: Path
) -> None:
    bench = over(copied(models(), tmp_path / "model"))
    bench.on(rung)
    before = bench.vectors()
    bench.on(rung)
    file = weights(bench.folder)
    file.rename(tmp_path / "aside")
    with pytest.raises(Unavailable, match="no weights") as failure:
        bench.vectors()
    assert failure.value.next_step
    assert bench.state is State.UNAVAILABLE
    assert not is_mapped(bench.folder)
    (tmp_path / "aside").rename(file)
    assert np.array_equal(bench.vectors(), before)


def test_the_file_of_another_module_counts_too(
    models: Callable[..., Path], over: Callable[[Path], Bench], tmp_path: Path
) -> None:
    bench = over(copied(models(dense=True), tmp_path / "model"))
    before = bench.vectors()
    replace_file(
        bench.folder / "2_Dense" / "model.safetensors", models(dense=True, seed=1) / "2_Dense/model.safetensors"
    )
    after = bench.vectors()
    assert np.array_equal(after, expected(bench.folder))
    assert not np.allclose(after, before, atol=1e-3)


def test_a_pickled_file_beside_safetensors_counts_too(
    models: Callable[..., Path], over: Callable[[Path], Bench], tmp_path: Path
) -> None:
    folder = copied(models(dense=True), tmp_path / "model")
    _pickle(folder / "2_Dense" / "model.safetensors")
    bench = over(folder)
    before = bench.vectors()
    assert np.array_equal(before, expected(folder))
    shutil.copyfile(models(dense=True, seed=1) / "2_Dense/model.safetensors", folder / "2_Dense/model.safetensors")
    _pickle(folder / "2_Dense" / "model.safetensors")
    after = bench.vectors()
    assert np.array_equal(after, expected(folder))
    assert not np.allclose(after, before, atol=1e-3)


def test_a_pickled_file_beside_safetensors_counts_at_the_next_start_too(
    models: Callable[..., Path], over: Callable[[Path], Bench], tmp_path: Path
) -> None:
    folder = copied(models(dense=True), tmp_path / "model")
    _pickle(folder / "2_Dense" / "model.safetensors")
    before = over(folder).vectors()
    shutil.copyfile(models(dense=True, seed=1) / "2_Dense/model.safetensors", folder / "2_Dense/model.safetensors")
    _pickle(folder / "2_Dense" / "model.safetensors")
    after = over(folder).vectors()
    assert np.array_equal(after, expected(folder))
    assert not np.allclose(after, before, atol=1e-3)


def _pickle(file: Path) -> None:
    """Put a pytorch_model.bin in the place of a safetensors file."""
    from safetensors.torch import load_file

    torch.save({name: tensor.clone() for name, tensor in load_file(file).items()}, file.with_name("pytorch_model.bin"))
    file.unlink()


# Figures


def _in_no_file(adapter: Any) -> int:
    """Bytes of the buffers that the library computes at each load."""
    stored = adapter._module.state_dict()
    return sum(tensor.nbytes for name, tensor in adapter._module.named_buffers() if name not in stored)


@pytest.mark.parametrize(
    "how",
    [{}, {"layout": "sharded"}, {"dense": True}, {"dtype": "float16"}, {"layout": "bin"}],
    ids=["float32", "sharded", "dense", "float16", "bin"],
)
def test_the_figures_are_those_of_the_system(
    how: dict[str, Any], models: Callable[..., Path], over: Callable[[Path], Bench], cache: Path
) -> None:
    bench = over(models(**how))
    files = [*bench.folder.rglob("*.safetensors")]
    bench.engine.load("small")
    loaded, held = bench.engine.view("small", measured=True), smaps(*files, *cache.glob("*"))
    assert loaded.bytes_total is not None
    assert held >= 0.95 * loaded.bytes_total, "a load that was asked for reads all"
    assert abs(loaded.bytes_on_device - held) <= 0.05 * held
    beside = bench.engine.call("small", _in_no_file)
    assert beside > 0
    assert bench.engine.unload("small").state is State.UNLOADED
    for _ in range(2):
        bench.vectors()
        held = smaps(*files, *cache.glob("*"))
        view = bench.engine.view("small", measured=True)
        assert view.bytes_total is not None
        assert held >= 0.9 * view.bytes_total
        assert abs(view.bytes_on_device - held) <= 0.05 * held
        assert view.bytes_in_ram == beside, "on every rung"
        outcome = bench.engine.offload("small")
        assert outcome.state is State.IN_RAM
        assert smaps(*files, *cache.glob("*")) == 0
        assert abs(outcome.freed_bytes - held) <= 0.05 * held
        view = bench.engine.view("small", measured=True)
        assert view.bytes_on_device == 0
        assert view.bytes_in_ram == beside
    bench.engine.unload("small")
    assert not any(is_mapped(file) for file in (*files, *cache.glob("*")))
    view = bench.engine.view("small")
    assert view.bytes_on_device == view.bytes_in_ram == 0


def test_a_model_of_another_architecture_goes_the_same_way(tmp_path: Path, over: Callable[[Path], Bench]) -> None:
    bench = over(xlm_roberta(tmp_path / "model"))
    first = bench.vectors()
    assert np.array_equal(first, expected(bench.folder))
    assert bench.engine.offload("small").state is State.IN_RAM
    assert np.array_equal(bench.vectors(), first)
    assert bench.engine.unload("small").state is State.UNLOADED
    assert np.array_equal(bench.vectors(), first)


# Truncated files, in a process that may die of it


TRUNCATED = """
import itertools, json, logging, os, sys
from pathlib import Path

import numpy as np
from small_models import bert
from weights_bench import Bench, weights

from engine import LoadFailed, State
from engine.paths import cache_folder

logging.disable()
root = Path(sys.argv[1])
actions = {
    "use": lambda bench: None,
    "look and offload": lambda bench: (bench.engine.views(measured=True), bench.engine.offload("small")),
    "unload": lambda bench: bench.engine.unload("small"),
}
cases = itertools.product(["source", "converted"], [State.ON_DEVICE, State.IN_RAM], [0, 0.5], actions)
for number, (which, rung, size, action) in enumerate(cases):
    print(json.dumps([which, rung, size, action]), end=" ", flush=True)
    folder = root / which
    if not folder.exists():
        bert(folder, dtype="float32" if which == "source" else "float16")
    bench = Bench(folder)
    first = bench.vectors()
    bench.on(rung)
    file = weights(folder) if which == "source" else next((cache_folder() / "weights").iterdir())
    whole = file.read_bytes()
    os.truncate(file, int(size * len(whole)))
    actions[action](bench)
    if which == "source":
        try:
            bench.vectors()
            print("no failure", flush=True)
            continue
        except LoadFailed as error:
            assert error.next_step, error
        assert bench.state is State.FAILED
        file.write_bytes(whole)
        bench.engine.retry("small")
    assert np.array_equal(bench.vectors(), first)
    assert bench.engine.close()
    print("right", flush=True)
"""


def test_a_truncated_file_never_ends_the_process(tmp_path: Path) -> None:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "real"), str(Path(__file__).parent)]),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-c", TRUNCATED, str(tmp_path)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0, f"ended with {done.returncode} after: {done.stdout.splitlines()[-1:]}"
    lines = done.stdout.splitlines()
    assert len(lines) == 24
    assert [line for line in lines if not line.endswith(" right")] == []


def test_a_pickled_file_counts_also_where_other_safetensors_lie_beside_it(
    models: Callable[..., Path], over: Callable[[Path], Bench], tmp_path: Path
) -> None:
    from safetensors.numpy import save_file

    folder = copied(models(layout="bin"), tmp_path / "model")
    save_file({"stray": np.zeros(3, dtype=np.float32)}, folder / "extra.safetensors")
    bench = over(folder)
    assert np.array_equal(bench.vectors(), expected(folder))
    replace_file(folder / "pytorch_model.bin", weights(models(layout="bin", seed=1)))
    assert np.array_equal(bench.vectors(), expected(folder))


def test_a_link_that_leads_nowhere_and_empty_files_are_no_weights_files(
    models: Callable[..., Path], over: Callable[[Path], Bench], tmp_path: Path
) -> None:
    folder = copied(models(), tmp_path / "model")
    (folder / "optimizer.safetensors").symlink_to(tmp_path / "nowhere")
    for name in ("extra.bin", "extra.safetensors"):
        (folder / name).touch()
    bench = over(folder)
    assert np.array_equal(bench.vectors(), expected(folder))


def test_a_file_that_is_replaced_during_the_load_is_read_again_at_once(
    models: Callable[..., Path], over: Callable[[Path], Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.adapters.kinds.dense import DenseAdapter

    folder = copied(models(), tmp_path / "model")
    construct, times = DenseAdapter._construct, []

    def interrupted(self: DenseAdapter, place: Path) -> Any:
        module = construct(self, place)
        if not times:
            replace_file(weights(folder), weights(models(seed=1)))
        times.append(1)
        return module

    monkeypatch.setattr(DenseAdapter, "_construct", interrupted)
    bench = over(folder)
    assert np.array_equal(bench.vectors(), expected(folder))
    assert len(times) == 2

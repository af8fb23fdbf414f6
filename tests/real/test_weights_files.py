"""Weights files that change under a running engine: noticed before their pages are touched, and the vectors right."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import ROOT
from small_models import DIMENSION, Dtype, as_in_a_hub_cache, bert, xlm_roberta

from engine import Config, EncoderConfig, Engine, LoadFailed, Outcome, State
from engine.adapters.base import torch_module as torch_adapter

TEXTS = ["A pilot light is the small flame that stays lit.", "short", "two words"]

RUNGS = [State.ON_DEVICE, State.IN_RAM]


class Bench:
    """An engine with the encoder `small` over one folder, and `twin` over the same."""

    def __init__(self, folder: Path) -> None:
        # On a CPU both element types are float32; by their names alone the two share no copy of the weights.
        encoders = tuple(
            EncoderConfig(name, "dense", str(folder), device="cpu", dtype=dtype)
            for name, dtype in (("small", "auto"), ("twin", "float32"))
        )
        self.engine = Engine(Config(encoders=encoders))
        self.folder = folder

    def vectors(self, name: str = "small") -> np.ndarray:
        """What the encoder makes of TEXTS now."""
        return self.engine.call(name, lambda adapter: adapter.encode(TEXTS).vectors)

    def on(self, rung: State) -> None:
        """Use the encoder, then leave it on that rung."""
        self.vectors()
        if rung is State.IN_RAM:
            assert self.engine.offload("small").state is State.IN_RAM
        assert self.state is rung

    @property
    def state(self) -> State:
        """Where the encoder is."""
        return self.engine.view("small").state

    @property
    def loads(self) -> int:
        """How many times it was loaded."""
        return self.engine.view("small").loads


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of converted files, the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch_adapter._store.cache_clear()
    yield tmp_path / "cache" / "pilotlight" / "weights"
    torch_adapter._store.cache_clear()


@pytest.fixture
def over() -> Iterator[Callable[[Path], Bench]]:
    """Makes engines, and closes them."""
    benches = []

    def begin(folder: Path) -> Bench:
        benches.append(Bench(folder))
        return benches[-1]

    yield begin
    closed = [bench.engine.close() for bench in benches]
    assert all(closed)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes each small model once."""
    made: dict[str, Path] = {}
    root = tmp_path_factory.mktemp("models")

    def make(**how: Any) -> Path:
        key = json.dumps(how)
        if key not in made:
            made[key] = bert(root / str(len(made)), **how)
        return made[key]

    return make


def expected(folder: Path) -> np.ndarray:
    """What sentence-transformers makes of TEXTS with the files as they are now, computing in float32."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": "float32"})
    return model.float().encode(TEXTS, batch_size=32, show_progress_bar=False)


def copied(model: Path, folder: Path) -> Path:
    return Path(shutil.copytree(model, folder))


def weights(folder: Path) -> Path:
    """The first weights file of a model."""
    return next(file for pattern in ("*.safetensors", "*.bin") for file in sorted(folder.glob(pattern)))


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


def is_mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text(encoding="utf-8")


# The source changes between two uses


def _replaced(old: Path, new: Path) -> None:
    arriving = shutil.copyfile(new, old.with_suffix(".arriving"))
    arriving.replace(old)


def _rewritten(old: Path, new: Path) -> None:
    old.write_bytes(new.read_bytes())


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("change", [_replaced, _rewritten])
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
    with pytest.raises(LoadFailed) as failure:
        bench.vectors()
    assert failure.value.title == "Load failed"
    assert failure.value.next_step
    assert bench.state is State.FAILED
    assert not is_mapped(bench.folder)
    (tmp_path / "aside").rename(file)
    assert bench.engine.retry("small").result == "done"
    assert np.array_equal(bench.vectors(), before)


def test_the_file_of_another_module_counts_too(
    models: Callable[..., Path], over: Callable[[Path], Bench], tmp_path: Path
) -> None:
    bench = over(copied(models(dense=True), tmp_path / "model"))
    before = bench.vectors()
    _replaced(bench.folder / "2_Dense" / "model.safetensors", models(dense=True, seed=1) / "2_Dense/model.safetensors")
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


# The converted file


@pytest.mark.parametrize("how", [{"dtype": "float16"}, {"dtype": "bfloat16"}, {"layout": "bin"}], ids=str)
def test_converted_weights_are_made_once_and_found_by_every_later_load(
    how: dict[str, Any], models: Callable[..., Path], over: Callable[[Path], Bench], cache: Path
) -> None:
    bench = over(models(**how))
    first = bench.vectors()
    (file,) = cache.iterdir()
    made = file.stat()
    for _ in range(3):
        assert bench.engine.unload("small").state is State.UNLOADED
        assert not is_mapped(file)
        assert np.array_equal(bench.vectors(), first)
    assert np.array_equal(over(models(**how)).vectors(), first)
    assert list(cache.iterdir()) == [file]
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)
    assert np.array_equal(first, expected(models(**how)))


@pytest.mark.parametrize("rung", RUNGS)
def test_a_converted_file_that_was_deleted_is_made_again(
    rung: State, models: Callable[..., Path], over: Callable[[Path], Bench], cache: Path
) -> None:
    bench = over(models(dtype="float16"))
    first = bench.vectors()
    bench.on(rung)
    (file,) = cache.iterdir()
    file.unlink()
    assert np.array_equal(bench.vectors(), first)
    assert bench.loads == 2
    assert list(cache.iterdir()) == [file]


def test_two_encoders_over_the_same_files_at_once_share_what_is_converted(
    models: Callable[..., Path], over: Callable[[Path], Bench], cache: Path
) -> None:
    bench = over(models(dtype="float16"))
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(bench.vectors, ("small", "twin"))
    (file,) = cache.iterdir()
    assert np.array_equal(one, other)
    assert bench.engine.unload("small").state is State.UNLOADED
    assert is_mapped(file)
    assert np.array_equal(bench.vectors("twin"), one)
    assert bench.engine.offload("twin").state is State.IN_RAM
    assert np.array_equal(bench.vectors("small"), one)
    assert np.array_equal(bench.vectors("twin"), one)
    bench.engine.unload_all()
    assert not is_mapped(file)


def test_two_encoders_may_rest_and_wake_apart(models: Callable[..., Path], over: Callable[[Path], Bench]) -> None:
    bench = over(models())
    one = bench.vectors("small")
    assert np.array_equal(bench.vectors("twin"), one)
    assert bench.engine.offload("small").state is State.IN_RAM
    assert np.array_equal(bench.vectors("twin"), one)
    assert bench.engine.unload("twin").state is State.UNLOADED
    assert np.array_equal(bench.vectors("small"), one)


# A hub's cache: links into blobs


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_link_that_points_to_another_blob_is_noticed(
    dtype: Dtype,
    rung: State,
    models: Callable[..., Path],
    over: Callable[[Path], Bench],
    cache: Path,
    tmp_path: Path,
) -> None:
    snapshot = as_in_a_hub_cache(models(dtype=dtype), tmp_path / "hub")
    bench = over(snapshot)
    bench.on(rung)
    before = bench.vectors()
    link = snapshot / "model.safetensors"
    old = link.readlink()
    blob = link.resolve().with_name("another")
    shutil.copyfile(models(dtype=dtype, seed=1) / "model.safetensors", blob)
    bench.on(rung)
    _point(link, os.path.relpath(blob, link.parent))
    after = bench.vectors()
    assert np.array_equal(after, expected(snapshot))
    assert not np.allclose(after, before, atol=1e-3)
    bench.on(rung)
    _point(link, old)
    assert np.array_equal(bench.vectors(), before)
    assert len(list(cache.glob("*"))) == (0 if dtype == "float32" else 2), "the first one is found again"


def test_the_same_blob_in_another_cache_needs_no_second_conversion(
    models: Callable[..., Path], over: Callable[[Path], Bench], cache: Path, tmp_path: Path
) -> None:
    vectors = [
        over(as_in_a_hub_cache(models(dtype="float16"), tmp_path / name)).vectors() for name in ("hub", "another")
    ]
    assert np.array_equal(*vectors)
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("change", [_replaced, _rewritten])
@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("again", [False, True], ids=["the same engine", "the next one"])
def test_other_weights_of_the_same_size_in_a_folder_that_is_called_blobs_are_converted_anew(
    again: bool,
    linked: bool,
    change: Callable[[Path, Path], None],
    models: Callable[..., Path],
    over: Callable[[Path], Bench],
    cache: Path,
    tmp_path: Path,
) -> None:
    old, new = models(dtype="float16"), models(dtype="float16", seed=1)
    folder = copied(old, tmp_path / "blobs")
    file = weights(folder)
    if linked:  # to a file whose name is no hash
        folder = copied(old, tmp_path / "model")
        weights(folder).unlink()
        weights_link = folder / file.name
        weights_link.symlink_to(file)
    bench = over(folder)
    before = bench.vectors()
    assert bench.engine.unload("small").state is State.UNLOADED
    assert weights(old).stat().st_size == weights(new).stat().st_size
    change(file, weights(new))
    after = (over(folder) if again else bench).vectors()
    assert np.array_equal(after, expected(new))
    assert not np.allclose(after, before, atol=1e-3)
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("again", [False, True], ids=["the same engine", "the next one"])
@pytest.mark.parametrize("hub", [False, True])
def test_another_configuration_makes_another_conversion(
    hub: bool,
    again: bool,
    models: Callable[..., Path],
    over: Callable[[Path], Bench],
    cache: Path,
    tmp_path: Path,
) -> None:
    model = models(dtype="float16")
    folder = as_in_a_hub_cache(model, tmp_path / "hub") if hub else copied(model, tmp_path / "model")
    bench = over(folder)
    before = bench.vectors()
    assert bench.engine.unload("small").state is State.UNLOADED
    assert np.array_equal(bench.vectors(), before)
    assert bench.engine.unload("small").state is State.UNLOADED
    assert len(list(cache.iterdir())) == 1
    how = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert how["layer_norm_eps"] < 0.1
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(how | {"layer_norm_eps": 0.5}), encoding="utf-8")
    after = (over(folder) if again else bench).vectors()
    assert len(list(cache.iterdir())) == 2
    assert np.array_equal(after, expected(folder))
    assert not np.allclose(after, before, atol=1e-3)


def _point(link: Path, target: str | Path) -> None:
    arriving = link.with_suffix(".arriving")
    arriving.symlink_to(target)
    arriving.replace(link)


# A module that writes into its weights


def _plant(adapter: Any) -> None:
    """Make the module add 1 to an element of a bias before every forward."""
    bias = adapter._module.state_dict(keep_vars=True)[BIAS]

    def write(*_: object) -> None:
        with torch.no_grad():
            bias[3] += 1

    adapter._module.register_forward_pre_hook(write)


def _read(adapter: Any) -> float:
    return float(adapter._module.state_dict()[BIAS][3])


BIAS = "0.model.embeddings.LayerNorm.bias"


@pytest.mark.parametrize("down", [Engine.offload, Engine.unload])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_a_module_wrote_into_its_weights_is_kept(
    dtype: Dtype,
    down: Callable[[Engine, str], Outcome],
    models: Callable[..., Path],
    over: Callable[[Path], Bench],
    tmp_path: Path,
) -> None:
    bench = over(copied(models(dtype=dtype), tmp_path / "model"))
    untouched = bench.vectors()
    engine = bench.engine
    first = engine.call("small", _read)
    engine.call("small", _plant)
    bench.vectors()
    wrote = engine.call("small", _read)
    assert wrote >= first + 1
    for _ in range(3):
        down(engine, "small")
        view = engine.view("small")
        assert view.state is State.UNLOADED
        assert (view.bytes_on_device, view.bytes_in_ram) == (0, DIMENSION * 4), "the vector that was written to, kept"
        if down is Engine.offload:
            assert view.note is not None
            assert "writes into its own weights" in view.note
        assert engine.call("small", _read) == wrote
        assert not np.allclose(bench.vectors(), untouched, atol=1e-3)
    os.utime(weights(bench.folder))
    assert engine.call("small", _read) == first, "what was written belonged to the file as it was"
    assert np.array_equal(bench.vectors(), untouched)
    assert engine.offload("small").state is State.IN_RAM
    engine.unload("small")
    assert engine.view("small").bytes_in_ram == 0


def test_what_a_module_wrote_is_forgotten_when_the_file_changes_while_nothing_is_loaded(
    models: Callable[..., Path], over: Callable[[Path], Bench], tmp_path: Path
) -> None:
    bench = over(copied(models(), tmp_path / "model"))
    untouched = bench.vectors()
    bench.engine.call("small", _plant)
    bench.vectors()
    assert bench.engine.unload("small").state is State.UNLOADED
    _replaced(weights(bench.folder), weights(models(seed=1)))
    assert np.array_equal(bench.vectors(), expected(bench.folder))
    assert not np.allclose(bench.vectors(), untouched, atol=1e-3)
    assert bench.engine.offload("small").state is State.IN_RAM


# Figures


def _in_no_file(adapter: Any) -> int:
    """Bytes of the buffers that the library makes anew at each load."""
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
from test_weights_files import Bench, weights

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
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "real")]),
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
    _replaced(folder / "pytorch_model.bin", weights(models(layout="bin", seed=1)))
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
            _replaced(weights(folder), weights(models(seed=1)))
        times.append(1)
        return module

    monkeypatch.setattr(DenseAdapter, "_construct", interrupted)
    bench = over(folder)
    assert np.array_equal(bench.vectors(), expected(folder))
    assert len(times) == 2

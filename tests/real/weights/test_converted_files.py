"""Converted weights: made once, shared, found again, and made again when their source or configuration changes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import DIMENSION, Dtype, as_in_a_hub_cache
from weights_bench import Bench, copied, expected, is_mapped, replace_file, rewrite_file, weights

from engine import Engine, Outcome, State

RUNGS = [State.ON_DEVICE, State.IN_RAM]


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


@pytest.mark.parametrize("change", [replace_file, rewrite_file])
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
    replace_file(weights(bench.folder), weights(models(seed=1)))
    assert np.array_equal(bench.vectors(), expected(bench.folder))
    assert not np.allclose(bench.vectors(), untouched, atol=1e-3)
    assert bench.engine.offload("small").state is State.IN_RAM

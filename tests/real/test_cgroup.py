"""A machine with less memory than the model has weights: block by block it encodes all the same."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_models
from expected import importing_root
from memory_group import memory_group
from running import ROOT
from small_models import Dtype

from engine.weights.files import layout

Make = Callable[[Dtype, dict[str, int]], Path]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory groups and peaks are read as Linux shows them")

MIB = 2**20
SIZES = {
    "vocab_size": 250_002,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
"""Those of XLM-RoBERTa-large, but for the positions, of which the small model's tokenizer knows 128."""
FEW_LAYERS = SIZES | {"num_hidden_layers": 6}
"""1.3 GB as float32, three quarters of them in one tensor."""
AT_ONCE = 1 << 22  # numbers
LEAST_FREE = 6 << 30
"""Bytes on the disk, so that a small machine is not filled."""


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Make]:
    """Makes the folder of a model of these sizes with random weights."""
    if shutil.disk_usage(tmp_path).free < LEAST_FREE:
        pytest.skip(f"less than {LEAST_FREE >> 30} GiB are free on the disk")

    def make(dtype: Dtype, sizes: dict[str, int]) -> Path:
        folder = small_models.xlm_roberta(tmp_path / "model", dtype=dtype)
        for file, settings in (
            (folder / "config.json", sizes),
            (folder / "1_Pooling" / "config.json", {"embedding_dimension": sizes["hidden_size"]}),
        ):
            before = json.loads(file.read_text(encoding="utf-8"))
            assert settings.keys() <= before.keys()
            file.write_text(json.dumps(before | settings), encoding="utf-8")
        write_weights(folder, np.dtype(dtype))
        return folder

    yield make
    shutil.rmtree(tmp_path)


def write_weights(folder: Path, dtype: np.dtype[Any]) -> None:
    """Write random weights of the shapes that the folder's configuration asks for; none stay in the file cache."""
    import torch
    from transformers import AutoConfig, AutoModel

    with torch.device("meta"):
        bare = AutoModel.from_config(AutoConfig.from_pretrained(folder))
    shapes = {name: tuple(tensor.shape) for name, tensor in bare.state_dict().items()}
    chance = np.random.default_rng(0)
    noise = chance.random(2 * AT_ONCE, dtype=np.float32) * np.float32(0.07) - np.float32(0.035)
    spelled = f"F{8 * dtype.itemsize}"
    with (folder / "model.safetensors").open("wb") as file:
        file.write(layout.header([(name, spelled, shape) for name, shape in shapes.items()], {"format": "pt"}))
        for name, shape in shapes.items():
            mean = np.float32(1) if name.endswith("LayerNorm.weight") else np.float32(0)
            for start in range(0, math.prod(shape), AT_ONCE):
                first = chance.integers(AT_ONCE)  # somewhere else for every block, so that no two are alike
                values = noise[first : first + min(AT_ONCE, math.prod(shape) - start)]
                file.write((values + mean).astype(dtype).data)
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def encode(model: Path, *group: Path) -> Any:
    """What a process of its own found."""
    script = ROOT / "tests" / "real" / "encode_within.py"
    run = subprocess.run(
        [sys.executable, str(script), str(model), *map(str, group)],
        cwd=ROOT,
        check=False,
        env=importing_root() | {"XDG_CACHE_HOME": str(model.parent / "cache")},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.soak("cgroup")
def test_in_half_the_memory_that_its_weights_take_a_model_encodes_to_the_same_bits(made: Make, soak: bool) -> None:
    model = made("float32", SIZES if soak else FEW_LAYERS)
    weights = (model / "model.safetensors").stat().st_size
    with memory_group(weights // 2) as group:
        paged = encode(model, group)
    whole = encode(model)
    told(paged, whole, weights)
    assert paged["peak"] < 0.6 * weights
    assert whole["peak"] > 0.6 * weights, "so that the limit above means something"


@pytest.mark.soak("cgroup")
def test_in_half_the_memory_that_they_take_as_float32_half_precision_weights_are_converted(
    made: Make, soak: bool
) -> None:
    """Few layers make it harder: the largest tensor alone takes more than the memory of the group."""
    sizes = FEW_LAYERS if soak else FEW_LAYERS | {"vocab_size": 150_000}
    model = made("float16", sizes)
    weights = 2 * (model / "model.safetensors").stat().st_size
    largest = 4 * sizes["vocab_size"] * sizes["hidden_size"]
    assert largest > weights // 2
    with memory_group(weights // 2) as group:
        paged = encode(model, group)
    whole = encode(model)
    told(paged, whole, weights)
    assert paged["peak"] < whole["peak"]


def told(paged: Any, whole: Any, weights: int) -> None:
    """Print what was found; the vectors have to be the same."""
    for name, found in (("streamed", paged), ("whole", whole)):
        print(f"{name}: peak {found['peak'] / MIB:.0f} MiB, {found['seconds']:.2f} s; weights {weights / MIB:.0f} MiB")
    assert paged["vectors"] == whole["vectors"]
    assert paged["equal"]
    assert any(np.frombuffer(bytes.fromhex(paged["vectors"]), dtype=np.float32))

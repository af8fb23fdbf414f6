"""The small models are what they say, and sentence-transformers reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_models import DIMENSION, Dtype, Layout, as_in_a_hub_cache, bert, xlm_roberta

TEXTS = ["A pilot light is the small flame that stays lit.", "short", ""]


def encode(folder: Path) -> np.ndarray:
    """The vectors that sentence-transformers makes of TEXTS, checked to be of length 1."""
    from sentence_transformers import SentenceTransformer

    vectors = SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(TEXTS)
    assert np.allclose(np.linalg.norm(vectors.astype(np.float32), axis=1), 1, atol=1e-2)
    return vectors


@pytest.mark.parametrize("make", [bert, xlm_roberta])
@pytest.mark.parametrize("layout", ["safetensors", "sharded", "bin"])
def test_every_layout_gives_the_same_vectors(make: Callable[..., Path], layout: Layout, tmp_path: Path) -> None:
    folder = make(tmp_path / "model", layout=layout)
    weights = {path.name for path in folder.iterdir() if path.suffix in {".safetensors", ".bin"}}
    shards = len(list(folder.glob("model-0*-of-0*.safetensors")))
    wanted = {"safetensors": {"model.safetensors"}, "bin": {"pytorch_model.bin"}}
    assert (shards > 2 and (folder / "model.safetensors.index.json").exists()) or weights == wanted[layout]
    vectors = encode(folder)
    assert vectors.shape == (len(TEXTS), DIMENSION)
    assert np.array_equal(vectors, encode(make(tmp_path / "plain")))


def test_a_dense_layer_has_a_file_of_its_own(tmp_path: Path) -> None:
    folder = bert(tmp_path / "model", dense=True)
    assert (folder / "2_Dense" / "model.safetensors").exists()
    assert encode(folder).shape == (len(TEXTS), DIMENSION // 2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_dtype_is_that_of_the_file(dtype: Dtype, tmp_path: Path) -> None:
    from safetensors import safe_open

    folder = bert(tmp_path / "model", dtype=dtype)
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {f"torch.{dtype}"}  # noqa: SIM118
    assert np.allclose(encode(folder), encode(bert(tmp_path / "plain")), atol=2e-2)


def test_a_hub_cache_holds_links_into_its_blobs(tmp_path: Path) -> None:
    snapshot = as_in_a_hub_cache(bert(tmp_path / "model"), tmp_path / "hub")
    weights = snapshot / "model.safetensors"
    assert weights.is_symlink()
    assert weights.resolve().parent == snapshot.parents[1] / "blobs"
    assert np.array_equal(encode(snapshot), encode(tmp_path / "model"))


def test_another_seed_gives_other_vectors(tmp_path: Path) -> None:
    assert not np.allclose(encode(bert(tmp_path / "one")), encode(bert(tmp_path / "two", seed=1)), atol=1e-3)

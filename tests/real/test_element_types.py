"""The element type of the weights: the files say it, and neither config.json nor another file of the model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_text_models import image_text_model
from multi_models import m3
from safetensors.torch import load_file, save_file
from small_models import Dtype, bert
from torch_kinds import KINDS, engine_on

from engine.adapters.kinds.dense import DenseAdapter
from engine.adapters.kinds.image_text import ImageTowerAdapter, TextTowerAdapter
from engine.adapters.kinds.multi import MultiAdapter
from engine.settings.config import EncoderConfig


def edit(file: Path, **values: Any) -> None:
    told = json.loads(file.read_text(encoding="utf-8"))
    for value in (told, *(part for part in told.values() if isinstance(part, dict))):
        for key in ("dtype", "torch_dtype"):
            value.pop(key, None)
        if value is told or "model_type" in value:
            value |= values
    file.write_text(json.dumps(told), encoding="utf-8")


def cast(file: Path, dtype: Dtype, only: Callable[[str], bool] = lambda name: True) -> None:
    """Write the floating tensors of a file, of those that `only` names, in another type."""
    wanted = getattr(torch, dtype)
    found = {
        name: tensor.to(wanted) if tensor.is_floating_point() and only(name) else tensor
        for name, tensor in load_file(file).items()
    }
    save_file(found, file, {"format": "pt"})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A model of each of the kinds, made once, in float32."""
    made: dict[str, Path] = {}

    def folder(what: str) -> Path:
        if what not in made:
            made[what] = KINDS[what][1](tmp_path_factory.mktemp("models") / "model")
        return made[what]

    return folder


@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_a_configuration_that_says_half_precision_changes_no_bit_and_makes_no_copy(
    what: str, key: str, folders: Callable[[str], Path], own_cache: Path
) -> None:
    kind, _, ask = KINDS[what]
    folder = folders(what)
    before = (folder / "config.json").read_text(encoding="utf-8")
    with engine_on("cpu", kind, folder) as engine:
        wanted = ask(engine)
    edit(folder / "config.json", **{key: "float16"})
    try:
        with engine_on("cpu", kind, folder) as engine:
            for found, expected in zip(ask(engine), wanted, strict=True):
                assert np.array_equal(np.asarray(found), np.asarray(expected))
            assert all(str(view.revision).endswith("+float32") for view in engine.views() if view.revision)
    finally:
        (folder / "config.json").write_text(before, encoding="utf-8")
    assert not list(own_cache.rglob("*.safetensors"))


def constructed(adapter: Any, folder: Path) -> dict[str, torch.Tensor]:
    """The weights as they are made, before the engine sends them anywhere."""
    adapter._import_libraries()
    return dict(adapter._construct(folder).state_dict())


def exactly(made: dict[str, torch.Tensor], file: Path, prefix: str = "") -> None:
    """Each tensor of the file is in the module, bit for bit, and in one type with all the others."""
    for name, stored in load_file(file).items():
        held = next(value for key, value in made.items() if f".{key}".endswith(f".{prefix}{name}"))
        assert torch.equal(held.double(), stored.double()), name
    assert len({value.dtype for value in made.values() if value.is_floating_point()}) == 1


def dense(folder: Path, **how: Any) -> DenseAdapter:
    return DenseAdapter(EncoderConfig("small", "dense", str(folder), **how), "cpu")


@pytest.mark.parametrize(("body", "layer"), [("float16", "float32"), ("float32", "bfloat16"), ("float16", "bfloat16")])
def test_a_layer_of_another_type_than_the_body_loses_nothing(body: Dtype, layer: Dtype, tmp_path: Path) -> None:
    folder = bert(tmp_path / "model", dense=True)
    cast(folder / "model.safetensors", body)
    cast(folder / "2_Dense" / "model.safetensors", layer)
    made = constructed(dense(folder), folder)
    exactly(made, folder / "model.safetensors")
    exactly(made, folder / "2_Dense" / "model.safetensors")


def test_a_file_of_several_types_is_as_wide_as_the_widest(tmp_path: Path) -> None:
    folder = bert(tmp_path / "model")
    cast(folder / "model.safetensors", "float16", lambda name: "LayerNorm" not in name)
    exactly(constructed(dense(folder), folder), folder / "model.safetensors")


def test_a_table_before_a_wider_layer_becomes_as_wide_and_the_layer_stays(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    words = Tokenizer(WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    chain: list[Any] = [StaticEmbedding(words, embedding_weights=torch.randn(2, 8)), Dense(8, 4)]
    SentenceTransformer(modules=chain, device="cpu").save_pretrained(str(tmp_path / "model"), create_model_card=False)
    folder = tmp_path / "model"
    files = sorted(folder.rglob("model.safetensors"))
    assert len(files) == 2
    table, layer = sorted(files, key=lambda file: "Dense" in file.parent.name)
    cast(table, "float16")
    made = constructed(dense(folder), folder)
    exactly(made, layer)
    exactly(made, table)


def test_what_sentence_transformers_notes_beside_the_model_is_not_believed_either(tmp_path: Path) -> None:
    folder = bert(tmp_path / "model")
    file = folder / "sentence_bert_config.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    for key in ("dtype", "torch_dtype"):
        file.write_text(json.dumps(told | {"model_args": {key: "float16"}}), encoding="utf-8")
        exactly(constructed(dense(folder), folder), folder / "model.safetensors")


@pytest.mark.parametrize(("body", "heads"), [("float16", "float32"), ("float32", "float16")])
def test_heads_and_body_of_two_types_lose_nothing(body: Dtype, heads: Dtype, tmp_path: Path) -> None:
    folder = m3(tmp_path / "model", dtype=body, heads=heads)
    adapter = MultiAdapter(EncoderConfig("small", "multi", str(folder)), "cpu")
    made = constructed(adapter, folder)
    for head in ("sparse_linear", "colbert_linear"):
        exactly(made, folder / f"{head}.safetensors", f"{head}.")


def test_one_tower_is_in_its_own_type_whatever_that_of_the_other_and_of_the_scale(tmp_path: Path) -> None:
    folder = image_text_model(tmp_path / "model", "clip")
    cast(folder / "model.safetensors", "bfloat16", lambda name: name.startswith("text_"))
    for key in ("dtype", "torch_dtype"):
        edit(folder / "config.json", **{key: "float16"})
        for part, kind, wanted in (("text", TextTowerAdapter, "bfloat16"), ("image", ImageTowerAdapter, "float32")):
            adapter = kind(EncoderConfig(f"small.{part}", "image_text", str(folder), part=part), "cpu")
            made = constructed(adapter, folder)
            assert {str(one.dtype) for one in made.values() if one.is_floating_point()} == {f"torch.{wanted}"}
            stored = load_file(folder / "model.safetensors")
            assert all(torch.equal(tensor, stored[name]) for name, tensor in made.items() if name in stored)

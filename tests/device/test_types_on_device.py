"""The element type of the weights on a device: that of their files, whatever the configuration says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_device import Card
from safetensors.torch import load_file, save_file
from small_models import bert
from torch_kinds import TEXTS, engine_on


@pytest.mark.parametrize(
    ("file", "told", "used"), [("float32", "float16", "float32"), ("bfloat16", "float32", "bfloat16")]
)
def test_on_a_device_the_files_say_what_is_computed_in(
    card: Card, file: str, told: str, used: str, tmp_path: Path
) -> None:
    folder = bert(tmp_path / "model", dtype=file)  # type: ignore[arg-type]
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text(encoding="utf-8")) | {"dtype": told}), encoding="utf-8")
    with engine_on("fakegpu:0", "dense", folder) as engine:
        assert np.isfinite(engine.dense("x").encode(TEXTS)).all()
        assert str(engine.view("x").revision).endswith(f"+{used}")


def test_a_layer_wider_than_the_body_computes_on_a_device_as_on_the_cpu(card: Card, tmp_path: Path) -> None:
    folder = bert(tmp_path / "model", dense=True)
    body = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(body, folder / "model.safetensors", {"format": "pt"})
    assert load_file(folder / "2_Dense" / "model.safetensors")["linear.weight"].dtype is torch.float32
    with engine_on("cpu", "dense", folder) as engine:
        wanted = engine.dense("x").encode(TEXTS)
    with engine_on("fakegpu:0", "dense", folder) as engine:
        assert np.abs(engine.dense("x").encode(TEXTS) - wanted).max() <= 1e-5
        assert str(engine.view("x").revision).endswith("+float32")

"""A batch that finds its device full is halved; once there is memory again, batches grow back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from fake_device import Card
from safetensors.torch import load_file, save_file
from torch import nn

from engine import Config, EncoderConfig, Engine, Hardware, State
from engine.adapters.base.batches import FIRST_WAIT, LARGEST
from engine.adapters.base.torch_module import TorchAdapter

WIDTH = 256
ROWS = 2 * LARGEST


def layer() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()).eval()


class LayerAdapter(TorchAdapter):
    """Reads a `layer`."""

    packages: ClassVar[tuple[str, ...]] = ("torch",)

    def _import_library(self) -> str:
        return "a test 1"

    def _construct(self, folder: Path) -> Any:
        module = layer()
        module.load_state_dict(load_file(folder / "model.safetensors"))
        return module

    def encode(self) -> tuple[torch.Tensor, list[int]]:
        """What it makes of all the rows, and the batch sizes that it tried."""
        tried: list[int] = []

        def compute(size: int) -> torch.Tensor:
            tried.append(size)
            with torch.inference_mode():
                return torch.cat([self._module(part.to("fakegpu:0")).cpu() for part in rows().split(size)])

        return self._in_batches(compute, ROWS), tried


def rows() -> torch.Tensor:
    return torch.linspace(-1, 1, ROWS * WIDTH).reshape(ROWS, WIDTH)


@pytest.fixture
def engine(card: Card, tmp_path: Path) -> Iterator[Engine]:
    torch.manual_seed(0)
    save_file(layer().state_dict(), tmp_path / "model.safetensors")
    hardware = Hardware(device="fakegpu:0", idle_timeout_seconds=0)
    encoder = EncoderConfig("layer", "dense", str(tmp_path))
    with Engine(Config(hardware=hardware, encoders=(encoder,)), adapter=LayerAdapter) as engine:
        yield engine


def test_a_batch_is_halved_while_its_card_is_full_and_grows_back_once_it_is_not(engine: Engine, card: Card) -> None:
    wanted, tried = engine.call("layer", LayerAdapter.encode)
    assert tried == [LARGEST]

    def used(*sizes: int) -> None:
        found, tried = engine.call("layer", LayerAdapter.encode)
        assert tried == list(sizes)
        assert (found - wanted).abs().max() <= 1e-6

    whole = card.peak - card.live
    card.capacity = card.live + whole // 3
    used(32, 16, 8)
    used(8)
    card.capacity = card.live + whole // 2
    for _ in range(FIRST_WAIT - 1):
        used(8)
    used(16)
    used(32, 16)
    card.capacity = None
    for _ in range(2 * FIRST_WAIT):
        used(16)
    used(32)
    used(32)
    view = engine.view("layer")
    assert (view.state, view.device, view.loads, view.note) == (State.ON_DEVICE, "fakegpu:0", 1, None)


def test_coming_up_again_forgets_what_did_not_fit(engine: Engine, card: Card) -> None:
    engine.call("layer", LayerAdapter.encode)
    whole = card.peak - card.live
    card.capacity = card.live + whole // 3
    assert engine.call("layer", LayerAdapter.encode)[1] == [32, 16, 8]
    card.capacity = None
    assert engine.call("layer", LayerAdapter.encode)[1] == [8]
    engine.offload("layer")
    assert engine.call("layer", LayerAdapter.encode)[1] == [32]

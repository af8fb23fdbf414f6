"""A batch of an encoder that is streamed finds its device full at any of its allocations: served, or said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from fake_device import Card
from safetensors.torch import load_file, save_file
from torch import nn

from engine import Config, EncoderConfig, Engine, Hardware, NoRoom, State
from engine.adapters.base.torch_module import TorchAdapter

WIDTH = 256
GIB = 1 << 30


class Tower(nn.Module):
    """Ten blocks of two operations each."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()) for _ in range(10))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            rows = layer(rows)
        return rows


class TowerAdapter(TorchAdapter):
    """Reads a `Tower`."""

    packages: ClassVar[tuple[str, ...]] = ("torch",)

    def _import_library(self) -> str:
        return "a test 1"

    def _construct(self, folder: Path) -> Any:
        module = Tower().eval()
        module.load_state_dict(load_file(folder / "model.safetensors"))
        return module

    def encode(self) -> torch.Tensor:
        """What it makes of four rows."""
        rows = torch.linspace(-1, 1, 4 * WIDTH).reshape(4, WIDTH)

        def compute(size: int) -> torch.Tensor:
            with torch.inference_mode():
                device = next(self._module.parameters()).device
                return torch.cat([self._module(part.to(device)).cpu() for part in rows.split(size)])

        return self._in_batches(compute, len(rows))


TOTAL = sum(parameter.nbytes for parameter in Tower().parameters())


@pytest.fixture(params=["stream", "cpu", "error"])
def on_no_room(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(card: Card, tmp_path: Path, on_no_room: str) -> Iterator[Engine]:
    torch.manual_seed(0)
    save_file(Tower().state_dict(), tmp_path / "model.safetensors")
    hardware = Hardware(
        device="fakegpu:0",
        idle_timeout_seconds=0,
        max_vram=repr(TOTAL // 4 / GIB),
        stream_layers=True,
        on_no_room=on_no_room,
    )
    encoder = EncoderConfig("tower", "dense", str(tmp_path))
    with Engine(Config(hardware=hardware, encoders=(encoder,)), adapter=TowerAdapter) as engine:
        yield engine


def encoded(engine: Engine) -> torch.Tensor:
    found: torch.Tensor = engine.call("tower", TowerAdapter.encode)
    return found


@pytest.fixture
def wanted(tmp_path: Path) -> torch.Tensor:
    torch.manual_seed(0)
    with torch.inference_mode():
        found: torch.Tensor = Tower().eval()(torch.linspace(-1, 1, 4 * WIDTH).reshape(4, WIDTH))
        return found


def assert_streamed(engine: Engine, card: Card, held: int) -> None:
    view = engine.view("tower")
    assert (view.state, view.device, view.in_flight, view.error) == (State.ON_DEVICE, "fakegpu:0", 0, None)
    assert str(view.note).startswith("Streamed: 0 of 10 blocks stay")
    assert (view.bytes_on_device, card.live) == (held, held)


@pytest.mark.slow
@pytest.mark.parametrize("on_no_room", ["stream"], indirect=True)
def test_one_allocation_that_fails_anywhere_in_a_batch_costs_nobody_anything(
    engine: Engine, card: Card, wanted: torch.Tensor
) -> None:
    encoded(engine)
    before, held = card.allocations, card.live
    encoded(engine)
    count = card.allocations - before
    assert count >= 20
    for nth in range(1, count + 1):
        card.fail_allocation(nth)
        assert (encoded(engine) - wanted).abs().max() <= 1e-6, f"allocation {nth} of {count}"
        assert_streamed(engine, card, held)
    assert engine.view("tower").loads == 1
    assert card.peak <= TOTAL // 4


@pytest.mark.slow
@pytest.mark.parametrize("on_no_room", ["stream"], indirect=True)
def test_a_card_that_is_full_from_any_allocation_of_a_batch_on_is_left_for_the_cpu(
    engine: Engine, card: Card, wanted: torch.Tensor
) -> None:
    encoded(engine)
    before, held = card.allocations, card.live
    encoded(engine)
    count = card.allocations - before
    for nth in range(1, count + 1):
        card.fail_allocation(nth, for_good=True)
        assert (encoded(engine) - wanted).abs().max() <= 1e-6, f"allocation {nth} of {count}"
        view = engine.view("tower")
        assert (view.state, view.device, view.in_flight, view.error) == (State.ON_DEVICE, "cpu", 0, None)
        assert card.live == 0
        card.reset()
        engine.offload("tower")
        assert (encoded(engine) - wanted).abs().max() <= 1e-6
        assert_streamed(engine, card, held)


@pytest.mark.parametrize("on_no_room", ["error", "cpu"], indirect=True)
def test_without_streaming_what_does_not_fit_is_refused_or_computed_on_the_cpu(
    engine: Engine, card: Card, wanted: torch.Tensor, on_no_room: str
) -> None:
    if on_no_room == "error":
        with pytest.raises(NoRoom, match="fakegpu:0 has no room"):
            encoded(engine)
    else:
        assert (encoded(engine) - wanted).abs().max() <= 1e-6
    view = engine.view("tower")
    assert view.state is (State.IN_RAM if on_no_room == "error" else State.ON_DEVICE)
    assert (view.in_flight, view.error, card.live) == (0, None, 0)

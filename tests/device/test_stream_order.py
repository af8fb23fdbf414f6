"""A real card copies and computes at once: what must wait for something else is told to, whole, streamed and going."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from fake_device import Card
from fake_runtime import installed
from safetensors.torch import save_file
from stream_order import Order, watched
from torch import nn

from engine.devices.placement import Placement
from engine.weights.files.identity import Identity
from engine.weights.files.store import Store
from engine.weights.home import Home
from engine.weights.home_request import HomeRequest
from engine.weights.moves.staging import Piece, Uploader

DEVICE = "fakegpu:0"
SIZE = 4096


@pytest.fixture
def order(card: Card, monkeypatch: pytest.MonkeyPatch) -> Order:
    """Copies are on their way until somebody waits for them, as from pinned memory alone."""
    installed(monkeypatch)
    return watched(monkeypatch)


@pytest.fixture
def uploader(order: Order) -> Iterator[Uploader]:
    uploader = Uploader(DEVICE)
    yield uploader
    uploader.close()


# What a race is


def some_pieces() -> list[Piece]:
    return [Piece(0, torch.ones(SIZE, dtype=torch.uint8))]


@pytest.mark.parametrize(
    ("guarded", "awaited", "race"),
    [
        (True, True, None),
        (False, True, "aten.copy_.default does not wait for aten.fill_.Scalar"),
        (True, False, "aten.add.Tensor does not wait for aten.copy_.default"),
    ],
)
def test_a_copy_beside_what_is_computed_on_its_arena_is_a_race(
    order: Order, uploader: Uploader, guarded: bool, awaited: bool, race: str | None
) -> None:
    arena = torch.empty(SIZE, dtype=torch.uint8, device=DEVICE)
    arena.fill_(7)
    if guarded:
        uploader.after_current()
    copied = uploader.send(arena, some_pieces())
    if awaited:
        uploader.wait(copied)
    result = arena + 1
    assert (race in order.races) if race else (order.races == [])
    uploader.before_current()
    assert (result.cpu() == 2).all()


@pytest.mark.parametrize("awaited", [True, False])
def test_an_arena_that_goes_while_it_is_copied_to_is_a_race(order: Order, uploader: Uploader, awaited: bool) -> None:
    arena = torch.empty(SIZE, dtype=torch.uint8, device=DEVICE)
    uploader.after_current()
    uploader.send(arena, some_pieces())
    if awaited:
        uploader.before_current()
    del arena
    assert order.races == ([] if awaited else ["free does not wait for aten.copy_.default"])


def test_the_host_knows_to_be_done_what_it_has_waited_for(order: Order, uploader: Uploader) -> None:
    arena = torch.empty(SIZE, dtype=torch.uint8, device=DEVICE)
    arena.cpu()
    uploader.send(arena, some_pieces())
    uploader.synchronize()
    assert (arena + 1).sum().item() == 2 * SIZE
    assert order.races == []


# What the weights do


class Tower(nn.Module):
    """A table and six blocks, which run in `order`."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 64)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(6))
        self.order = list(range(6))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.words(ids)
        for index in self.order:
            hidden = self.layers[index](hidden)
        return hidden


def run(tower: Tower) -> torch.Tensor:
    """What it computes, which the host does not wait for."""
    with torch.inference_mode():
        result: torch.Tensor = tower(torch.tensor([[3, 7, 49]], device=DEVICE))
        return result


@pytest.fixture
def tower() -> Tower:
    return Tower().eval()


Adopt = Callable[..., Home]


@pytest.fixture
def at_home(order: Order, tmp_path: Path) -> Iterator[Adopt]:
    """Gives a model a home over a file of its own until the end of the test."""
    with ExitStack() as closing:

        def begin(tower: Tower, keep: str = "mapped") -> Home:
            path = tmp_path / "model.safetensors"
            save_file(tower.state_dict(), path)
            store = Store(tmp_path / "store")
            request = HomeRequest(sources=(Identity.of(path),), device=DEVICE, made_by="a test", keep=keep)
            home = Home(tower, store, request)
            closing.callback(home.close)
            return home

        yield begin


@pytest.mark.parametrize("keep", ["mapped", "pinned"])
def test_weights_that_come_and_go_whole_are_waited_for(order: Order, tower: Tower, at_home: Adopt, keep: str) -> None:
    home = at_home(tower, keep)
    for _ in range(3):
        home.to_device(Placement(DEVICE))
        run(tower)
        home.offload()
    assert order.races == []


@pytest.mark.parametrize("keep", ["mapped", "pinned"])
@pytest.mark.parametrize("beyond_least", [-1, 0, 1, 2], ids=["one buffer", "two", "one resident", "two resident"])
def test_blocks_that_take_turns_wait_for_their_weights_and_these_for_their_place(
    order: Order, tower: Tower, at_home: Adopt, beyond_least: int, keep: str
) -> None:
    home = at_home(tower, keep)
    block = sum(parameter.nbytes for parameter in tower.layers[0].parameters())
    least = home.needs()[1]
    assert least is not None
    home.to_device(Placement(DEVICE, least + beyond_least * block))
    for _ in range(3):
        run(tower)
    assert order.races == []


@pytest.mark.parametrize("runs", [0, 1])
def test_an_encoder_steps_down_only_after_what_was_sent_ahead_is_there(
    order: Order, tower: Tower, at_home: Adopt, runs: int, card: Card
) -> None:
    home = at_home(tower)
    for _ in range(2):
        home.to_device(Placement(DEVICE, home.needs()[1]))
        for _ in range(runs):
            run(tower)
        home.offload()
        assert card.live == 0
    assert order.races == []


def test_blocks_that_run_in_another_order_than_they_were_sent_wait_too(
    order: Order, tower: Tower, at_home: Adopt
) -> None:
    home = at_home(tower)
    home.to_device(Placement(DEVICE, home.needs()[1]))
    tower.order = [0, 2, 2, 1, 5, 0, 3]
    for _ in range(3):
        run(tower)
    assert order.races == []


def test_blocks_that_run_within_each_other_wait_in_a_place_that_is_made_for_them_too(
    order: Order, tower: Tower, at_home: Adopt
) -> None:
    for outer, inner in ((0, 1), (1, 2), (2, 3)):
        within = tower.layers[inner]
        tower.layers[outer][0].register_forward_pre_hook(lambda _, inputs, within=within: within(inputs[0]))
    home = at_home(tower)
    home.to_device(Placement(DEVICE, home.needs()[1]))
    for _ in range(3):
        run(tower)
    assert order.races == []


def test_after_an_error_in_a_block_the_next_batch_waits_as_ever(order: Order, tower: Tower, at_home: Adopt) -> None:
    home = at_home(tower)
    home.to_device(Placement(DEVICE, home.needs()[1]))

    def broken(*_: object) -> None:
        raise ValueError("broken")

    for layer in tower.layers:
        hook = layer[1].register_forward_pre_hook(broken)
        with pytest.raises(ValueError, match="broken"):
            run(tower)
        hook.remove()
        run(tower)
    assert order.races == []

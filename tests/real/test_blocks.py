"""Which weights of a real architecture belong to one of its blocks, to a table, or to neither."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import chain

import block_models
import pytest
import torch
from block_models import Stacked
from torch import nn

from engine.weights.files.inventory import take_inventory
from engine.weights.moves.blocks import Blocks, Order, find_blocks


def found(module: nn.Module) -> Blocks:
    return find_blocks(module, take_inventory(module).regions)


def names(blocks: Blocks) -> tuple[list[list[str]], list[str], list[str]]:
    inside = [[region.name for region in block.regions] for block in blocks.blocks]
    return inside, [table.region.name for table in blocks.tables], [region.name for region in blocks.rest]


def stack(*entries: nn.Module) -> nn.Module:
    module = nn.Module()
    module.layers = nn.ModuleList(entries)
    return module


@pytest.mark.parametrize("made", block_models.ALL, ids=lambda made: made.__name__)
def test_every_weight_is_in_one_place_and_every_list_is_found(made: Callable[[], Stacked]) -> None:
    model = made()
    seen = take_inventory(model.module)
    blocks = find_blocks(model.module, seen.regions)
    inside, tables, rest = names(blocks)
    assert len(inside) == sum(model.lists)
    assert sorted([*chain.from_iterable(inside), *tables, *rest]) == sorted(region.name for region in seen.regions)
    assert all(len({re.findall(r"layers?\.(\d+)\.", name)[0] for name in block}) == 1 for block in inside)
    least = blocks.least(seen.loose)
    assert least is not None
    assert least < sum(region.flat.nbytes for region in seen.regions)


def test_a_layer_that_runs_many_times_cannot_be_streamed() -> None:
    module = block_models.albert()
    blocks = found(module)
    assert not blocks.can_stream
    assert blocks.least(take_inventory(module).loose) is None
    assert blocks.tables == ()


def test_a_weight_that_two_blocks_share_is_no_blocks() -> None:
    first, second, third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    inside, _, rest = names(found(stack(first, second, third)))
    assert rest == ["layers.0.weight"]
    assert inside == [["layers.0.bias"], ["layers.1.bias"], ["layers.2.weight", "layers.2.bias"]]


def test_one_block_that_stands_twice_in_its_list_is_one_block() -> None:
    one, two = nn.Linear(4, 4), nn.Linear(4, 4)
    assert len(found(stack(one, two, one)).blocks) == 2
    assert not found(stack(one, one)).can_stream


def test_a_list_in_a_block_belongs_to_the_block_and_a_list_in_a_list_is_looked_into() -> None:
    expert = stack(nn.Linear(4, 4), nn.Linear(4, 4))
    assert len(found(stack(expert, nn.Linear(4, 4))).blocks) == 2
    pair = nn.ModuleList([nn.Linear(4, 4), nn.LayerNorm(4)])
    assert len(found(stack(pair, nn.Linear(4, 4))).blocks) == 3


def test_a_block_without_weights_is_none() -> None:
    assert len(found(stack(nn.Linear(4, 4), nn.Identity(), nn.Linear(4, 4))).blocks) == 2


def with_embedding(embedding: nn.Module) -> nn.Module:
    module = stack(nn.Linear(4, 4), nn.Linear(4, 4))
    module.embedding = embedding
    return module


def test_a_large_embedding_is_a_table_and_a_small_one_is_not() -> None:
    assert names(found(with_embedding(nn.Embedding(300, 4))))[1] == ["embedding.weight"]
    assert names(found(with_embedding(nn.Embedding(30, 4))))[1:] == ([], ["embedding.weight"])


class Scaled(nn.Embedding):
    """Does more than look rows up."""


@pytest.mark.parametrize(
    "embedding",
    [nn.Embedding(300, 4, max_norm=1.0), nn.Embedding(300, 4, sparse=True), Scaled(300, 4), nn.Linear(4, 300)],
    ids=["writes into itself", "sparse", "a class of its own", "no embedding"],
)
def test_what_may_do_more_than_take_rows_is_no_table(embedding: nn.Module) -> None:
    blocks = found(with_embedding(embedding))
    assert blocks.tables == ()
    assert "embedding.weight" in [region.name for region in blocks.rest]


def test_an_embedding_that_something_else_computes_with_is_no_table() -> None:
    module = with_embedding(nn.Embedding(300, 4))
    module.head = nn.Linear(4, 300, bias=False)
    module.head.weight = module.embedding.weight
    assert found(module).tables == ()


def test_embeddings_that_share_their_weight_are_one_table() -> None:
    module = with_embedding(nn.Embedding(300, 4))
    module.other = nn.Embedding(300, 4)
    module.other.weight = module.embedding.weight
    (table,) = found(module).tables
    assert set(table.modules) == {module.embedding, module.other}


def test_what_fits_is_shared_out_between_blocks_that_stay_and_buffers() -> None:
    module = stack(*(nn.Linear(8, 8, bias=False) for _ in range(4)))  # 256 bytes each
    module.norm = nn.LayerNorm(64, bias=False)  # 256 bytes
    blocks = found(module)
    plans = [blocks.plan((), size) for size in (511, 512, 767, 768, 1023, 1024, 1279, 1280)]
    assert [plan and (plan.resident, plan.buffers) for plan in plans] == [
        None,
        (0, 1),
        (0, 1),
        (0, 2),
        (0, 2),
        (1, 2),
        (1, 2),
        (4, 0),
    ]
    assert blocks.least(()) == 768


def test_what_is_loose_counts_too() -> None:
    blocks = found(stack(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)))
    module = nn.Module()
    module.register_buffer("positions", torch.zeros(100), persistent=False)
    assert blocks.least(take_inventory(module).loose) == 512 + 512


def test_the_order_of_blocks_is_that_of_the_module_until_they_run_in_another() -> None:
    blocks = found(stack(*(nn.Linear(4, 4) for _ in range(3)))).blocks
    order = Order(blocks)
    assert [blocks.index(order.after(block)) for block in blocks] == [1, 2, 0]
    for index in (0, 2, 0):
        order.started(blocks[index])
    assert [blocks.index(order.after(block)) for block in blocks] == [2, 2, 0]

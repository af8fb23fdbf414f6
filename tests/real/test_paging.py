"""On a CPU few blocks' pages are resident at a time, and what is computed on them is the same to the bit."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import block_models
import numpy as np
import pytest
import torch
from block_models import Stacked
from safetensors.torch import save_file
from torch import nn

from engine.adapters.sources.locate import locate
from engine.weights.files.inventory import Region, take_inventory
from engine.weights.files.mapping import Mapping
from engine.weights.moves.blocks import find_blocks
from engine.weights.moves.paging import Paging, page_ranges

SLACK = 4 << 20
"""Bytes: a touch may bring in the 2 MiB around it, which at the ends of a range are not that block's alone."""


class Mapped:
    """A module whose weights are views of a mapping, as a home makes them."""

    def __init__(self, module: nn.Module, file: Path) -> None:
        seen = take_inventory(module)
        self.module, self.regions = module, {region.name: region for region in seen.regions}
        if not file.exists():
            save_file({name: region.flat.clone() for name, region in self.regions.items()}, file)
        self.mapping = Mapping(file)
        places = self.mapping.places
        self.begins: dict[str, int] = {}
        for name, region in self.regions.items():
            place = next(place for key, place in places.items() if name.endswith(key))
            region.assign(self.mapping.flat(place))
            self.begins[name] = place.begin
        self.blocks = find_blocks(module, seen.regions)
        self.mapping.give_back()

    def place_of(self, region: Region) -> tuple[Mapping, int]:
        return self.mapping, self.begins[region.name]

    @property
    def resident(self) -> int:
        resident = self.mapping.usage().resident
        assert resident is not None
        return resident

    def watch(self) -> list[int]:
        """What is resident as each block begins and ends, from now on."""
        found: list[int] = []
        for block in self.blocks.blocks:
            block.module.register_forward_hook(lambda *_: found.append(self.resident), prepend=True)
        return found


@pytest.fixture
def minilm() -> Mapped:
    from sentence_transformers import SentenceTransformer

    source = Path(locate("builtin:all-MiniLM-L6-v2").source)
    model = SentenceTransformer(str(source), device="cpu", local_files_only=True).eval()
    return Mapped(model, source / "model.safetensors")


TEXTS = ["a pilot light", "Was kostet ein Liter Öl?"]


def sizes(mapped: Mapped) -> tuple[int, int]:
    """Bytes of what is no block's, and of the largest block."""
    rest = sum(region.flat.nbytes for region in mapped.blocks.rest)
    return rest, max(block.nbytes for block in mapped.blocks.blocks)


@pytest.mark.parametrize("kept", [0, 2])
def test_the_pages_of_the_real_encoder_go_back_block_by_block(minilm: Mapped, kept: int) -> None:
    wanted = minilm.module.encode(TEXTS)
    whole = minilm.resident
    rest, largest = sizes(minilm)
    limit = rest + (kept + 1) * largest
    paging = Paging(minilm.blocks, limit, minilm.place_of)
    assert paging.note == f"Streamed: {kept} of 6 blocks stay in RAM."
    seen = minilm.watch()
    minilm.mapping.give_back()
    for _ in range(3):
        assert (minilm.module.encode(TEXTS) == wanted).all()
    assert len(seen) == 18
    assert max(seen) <= limit + SLACK < whole - 2 * largest
    assert minilm.resident <= rest + kept * largest + SLACK
    assert paging.end() == {}
    assert np.array_equal(minilm.module.encode(TEXTS), wanted)
    assert minilm.resident >= 6 * largest


@pytest.mark.parametrize("made", block_models.ALL, ids=lambda made: made.__name__)
def test_every_shape_of_stack_gives_the_same_bits(made: Callable[[], Stacked], tmp_path: Path) -> None:
    model = made()
    with torch.inference_mode():
        wanted = model.run("cpu")
        mapped = Mapped(model.module, tmp_path / "model.safetensors")
        paging = Paging(mapped.blocks, 0, mapped.place_of)
        for _ in range(2):
            assert torch.equal(model.run("cpu"), wanted)
    paging.end()
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in model.module.modules())


@pytest.fixture
def chain(tmp_path: Path) -> Mapped:
    """Four blocks of 1 MiB and a bit each, and a table of 4."""
    torch.manual_seed(0)
    module = nn.Sequential()
    module.words = nn.Embedding(2000, 512)
    module.layers = nn.ModuleList(nn.Linear(512, 512) for _ in range(4))
    return Mapped(module, tmp_path / "chain.safetensors")


def run(mapped: Mapped) -> torch.Tensor:
    with torch.inference_mode():
        x = mapped.module.words(torch.arange(2000))
        for layer in mapped.module.layers:
            x = layer(x)
    return x


def test_a_tables_pages_go_back_after_each_call(chain: Mapped) -> None:
    paging = Paging(chain.blocks, 0, chain.place_of)
    table = chain.blocks.tables[0].region.flat.nbytes
    chain.module.words(torch.arange(2000))
    assert chain.resident < table / 4
    paging.end()
    chain.module.words(torch.arange(2000))
    assert chain.resident >= table


def test_a_write_is_never_given_back(chain: Mapped) -> None:
    paging = Paging(chain.blocks, 0, chain.place_of)
    layer = chain.module.layers[1]
    with torch.no_grad():
        layer.weight.data[3, 4] = 7.0  # torch counts no such write
    wanted = run(chain)
    for _ in range(2):
        assert torch.equal(run(chain), wanted)
    assert layer.weight[3, 4] == 7.0
    paging.end()


def test_an_error_in_a_block_gives_its_pages_back_too(chain: Mapped) -> None:
    layer = chain.module.layers[2]

    def fail(*_: object) -> None:
        layer.weight.sum()
        raise ValueError

    paging = Paging(chain.blocks, 0, chain.place_of)
    trap = layer.register_forward_pre_hook(fail)
    with pytest.raises(ValueError):  # noqa: PT011 - it has no words
        run(chain)
    trap.remove()
    assert chain.resident < chain.blocks.blocks[0].nbytes
    run(chain)
    paging.end()


def test_pages_that_touch_are_one_range_and_what_is_in_no_file_has_none(chain: Mapped) -> None:
    regions = list(chain.regions.values())
    (whole,) = page_ranges(regions, chain.place_of)
    assert (whole.address % mmap.PAGESIZE, whole.begin) == (0, 0)
    assert whole.end - whole.begin >= sum(region.flat.nbytes for region in regions)

    def only(name: str) -> Callable[[Region], Any]:
        return lambda region: chain.place_of(region) if region.name == name else None

    (one,) = page_ranges(regions, only("words.weight"))
    assert 0 <= one.end - one.begin - 2000 * 512 * 4 <= 2 * mmap.PAGESIZE
    assert page_ranges(regions, lambda _: None) == ()


def test_the_next_block_is_asked_for_while_one_runs(chain: Mapped, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(chain.mapping, "will_need", lambda begin, end: asked.append((begin, end)))
    paging = Paging(chain.blocks, 0, chain.place_of)
    expected = [(r.begin, r.end) for block in chain.blocks.blocks for r in page_ranges(block.regions, chain.place_of)]
    run(chain)
    run(chain)
    assert asked[0] == expected[1]
    assert set(asked) == set(expected)
    paging.end()
    assert len(asked) == 2 * len(expected)

"""A module that is larger than its share of a device: its blocks take turns there, and nothing of it shows."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import block_models
import numpy as np
import pytest
import torch
from block_models import Stacked
from fake_device import Card
from torch import nn

from engine.adapters.sources.locate import locate
from engine.errors import OutOfMemory
from engine.weights.files.inventory import Inventory, Region, take_inventory
from engine.weights.moves.blocks import Block, Blocks, find_blocks
from engine.weights.moves.device_copy import DeviceCopy
from engine.weights.moves.staging import CopyEvent, Piece, Uploader
from engine.weights.moves.streaming import Stream
from engine.weights.release import dismantle

DEVICE = "fakegpu:0"
ACTIVATIONS = 1 << 20
"""Bytes that a few short texts take beside the weights."""


class Logged(Uploader):
    """Notes every block that it sends, by its number in the module; other pieces by None."""

    def __init__(self, device: str) -> None:
        super().__init__(device)
        self.blocks: tuple[Block, ...] = ()
        self.log: list[Any] = []
        self.failing = 0
        """Which send from now leaves noise in its arena and fails; 0 = none."""

    def send(self, arena: torch.Tensor, pieces: Any) -> CopyEvent:
        first = {block.regions[0].flat.data_ptr(): index for index, block in enumerate(self.blocks)}
        self.log.append(first.get(pieces[0].source.data_ptr()) if pieces else None)
        self.failing -= 1
        if self.failing == 0:
            arena.fill_(255)
            raise OSError("the disk is gone")
        return super().send(arena, pieces)


@pytest.fixture
def uploader(card: Card) -> Iterator[Logged]:
    uploader = Logged(DEVICE)
    yield uploader
    uploader.close()


Begin = Callable[..., Stream]


@pytest.fixture
def stream(uploader: Logged) -> Iterator[Begin]:
    """Streams a module within a number of bytes, or with a number of its blocks resident, until the test ends."""
    streams = []

    def begin(module: Any, within: int | None = None, *, resident: int = 0, buffers: int = 2) -> Stream:
        seen = take_inventory(module)
        blocks = find_blocks(module, seen.regions)
        uploader.blocks = blocks.blocks
        if within is None:
            within = room(blocks, seen, resident, buffers)
        streams.append(Stream(blocks, seen.loose, DEVICE, within, uploader, as_it_is))
        return streams[-1]

    yield begin
    for one in streams:
        one.end()


def room(blocks: Blocks, seen: Inventory, resident: int, buffers: int) -> int:
    least = blocks.least(seen.loose)
    assert least is not None
    return least + (resident + buffers - 2) * max(block.nbytes for block in blocks.blocks)


def as_it_is(region: Region, offset: int) -> Piece:
    return Piece(offset, region.flat.view(torch.uint8))


def nbytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def resident(model: Stacked, uploader: Uploader) -> torch.Tensor:
    """What the model makes of its input with all of it on the device."""
    seen = take_inventory(model.module)
    device_copy = DeviceCopy(seen.regions, seen.loose, DEVICE, uploader, as_it_is)
    with torch.inference_mode():
        found = model.run(DEVICE)
    device_copy.end()
    return found


@pytest.fixture
def model() -> Stacked:
    return block_models.bert()


def state(module: nn.Module) -> list[Any]:
    """What must be the same before and after: every tensor, where it is, and every hook."""
    tensors = [(id(tensor), tensor.data_ptr()) for tensor in (*module.parameters(), *module.buffers())]
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()]
    paddings = [part.padding_idx for part in module.modules() if isinstance(part, nn.Embedding)]
    return [tensors, hooks, paddings]


@pytest.mark.parametrize("part", [2, 4])
@pytest.mark.parametrize("made", block_models.ALL, ids=lambda made: made.__name__)
def test_streaming_gives_the_resident_result_within_its_bytes(
    made: Callable[[], Stacked], part: int, card: Card, uploader: Logged, stream: Begin
) -> None:
    model = made()
    before, wanted = state(model.module), resident(model, uploader)
    streamed_in = nbytes(model.module) // part
    card.reset()
    one = stream(model.module, streamed_in)
    assert card.peak <= streamed_in
    for mode in (torch.inference_mode, torch.enable_grad):
        with mode():
            assert (model.run(DEVICE).detach() - wanted).abs().max() <= 1e-6
        assert one.nbytes == card.live <= streamed_in
    to_host = card.to_host
    assert one.end() == {}
    assert card.to_host == to_host
    assert (card.live, one.nbytes) == (0, 0)
    assert state(model.module) == before


@pytest.fixture(scope="module")
def minilm() -> Any:
    from sentence_transformers import SentenceTransformer

    source = str(locate("builtin:all-MiniLM-L6-v2").source)
    return SentenceTransformer(source, device="cpu", local_files_only=True).eval()


@pytest.mark.parametrize("part", [2, 4])
def test_the_real_encoder_runs_on_a_card_with_room_for_a_part_of_it(
    minilm: Any, part: int, card: Card, stream: Begin
) -> None:
    texts = ["a pilot light", "Was kostet ein Liter Öl?"]
    wanted = minilm.encode(texts)
    before = state(minilm)
    card.capacity = nbytes(minilm) // part
    one = stream(minilm, card.capacity - ACTIVATIONS)
    for _ in range(2):
        assert np.abs(minilm.encode(texts) - wanted).max() <= 1e-6
    assert one.note == f"Streamed: {6 if part == 2 else 0} of 6 blocks stay on fakegpu:0."
    assert card.peak <= card.capacity
    one.end()
    assert card.live == 0
    assert state(minilm) == before
    assert np.abs(minilm.encode(texts) - wanted).max() == 0


def test_the_next_block_is_sent_before_it_runs_and_the_first_again_after_the_last(
    model: Stacked, uploader: Logged, stream: Begin
) -> None:
    layers = model.module.encoder.layer
    for index, layer in enumerate(layers):
        layer.register_forward_hook(lambda *_, index=index: uploader.log.append(f"{index} runs"))
    stream(model.module, resident=2)
    assert uploader.log == [None, 2]
    uploader.log.clear()
    for _ in range(2):
        model.run(DEVICE)
    run = ["0 runs", "1 runs", "2 runs", 3, "3 runs", 4, "4 runs", 5, "5 runs", 2]
    # The hook of the streaming itself comes after the test's: what it sends is logged once the block has run.
    assert uploader.log == run * 2


def test_with_one_buffer_nothing_is_sent_ahead(model: Stacked, uploader: Logged, stream: Begin) -> None:
    one = stream(model.module, buffers=1)
    wanted = resident_of(model)
    uploader.log.clear()
    for _ in range(2):
        assert (model.run(DEVICE) - wanted).abs().max() <= 1e-6
    assert uploader.log == [0, 1, 2, 3, 4, 5] * 2
    assert "0 of 6" in one.note


def resident_of(model: Stacked) -> torch.Tensor:
    """The result of the same weights on the CPU."""
    twin = block_models.bert()
    return twin.run("cpu").detach()


def test_less_room_than_one_block_is_refused(model: Stacked, card: Card, stream: Begin) -> None:
    before = state(model.module)
    with pytest.raises(OutOfMemory, match="largest block"):
        stream(model.module, buffers=0)
    assert (card.live, card.allocations) == (0, 0)
    assert state(model.module) == before


# What a module may do with its blocks


class Chain(nn.Module):
    """Five blocks that run in an order of one's own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(Step() for _ in range(5))
        self.order: list[int] = list(range(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for index in self.order:
            x = self.layers[index](x)
        return x


class Step(nn.Module):
    """Runs another one within itself, before or after it has read its weight, if it has one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(16, 16)
        self.within: list[Step] = []
        self.error: type[BaseException] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.error:
            raise self.error
        weight = self.inner.weight
        for other in self.within:
            x = other(x) + self.inner(x)
        return torch.tanh(nn.functional.linear(x, weight, self.inner.bias))


X = torch.linspace(-1, 1, 32).reshape(2, 16)


def computed(module: nn.Module, device: str = DEVICE) -> torch.Tensor:
    with torch.inference_mode():
        return module(X.to(device)).cpu()


@pytest.mark.parametrize("buffers", [1, 2])
def test_blocks_may_be_skipped_repeated_and_run_backwards(buffers: int, stream: Begin) -> None:
    chain = Chain()
    orders = [[0, 1, 2, 3, 4], [0, 2, 4], [4, 3, 2, 1, 0], [1, 1, 1, 3], [2, 2, 0, 0, 4, 1]]
    wanted = []
    for chain.order in orders:
        wanted.append(computed(chain, "cpu"))
    stream(chain, buffers=buffers)
    for chain.order, expected in [*zip(orders, wanted, strict=True)] * 2:
        assert (computed(chain) - expected).abs().max() <= 1e-6


def test_a_tower_that_does_not_run_is_not_sent_again_and_again(uploader: Logged, stream: Begin) -> None:
    chain = Chain()
    chain.order = [0, 1, 2]
    stream(chain)
    computed(chain)
    uploader.log.clear()
    for _ in range(3):
        computed(chain)
    assert uploader.log[:2] == [0, 1]  # what it had guessed at first was 3
    assert set(uploader.log) == {0, 1, 2}


def test_blocks_may_run_within_each_other_even_more_of_them_than_there_are_buffers(card: Card, stream: Begin) -> None:
    chain = Chain()
    first, second, third, fourth, last = chain.layers
    first.within, second.within, third.within = [second], [third, fourth], [fourth, last]
    object.__setattr__(last, "within", [])
    wanted = computed(chain, "cpu")
    one = stream(chain)
    held = one.nbytes
    for _ in range(2):
        assert (computed(chain) - wanted).abs().max() <= 1e-6
        assert card.live == one.nbytes == held


class Again(nn.Module):
    """A block that runs itself three times deep."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor, depth: int = 3) -> torch.Tensor:
        return self.inner(self(x, depth - 1)) if depth else self.inner(x)


def test_a_block_may_run_itself(stream: Begin) -> None:
    chain = Chain()
    chain.layers[1] = Again()
    wanted = computed(chain, "cpu")
    stream(chain)
    for _ in range(2):
        assert (computed(chain) - wanted).abs().max() <= 1e-6


class Broken(Exception):
    pass


@pytest.mark.parametrize("error", [Broken, KeyboardInterrupt])
@pytest.mark.parametrize("index", range(5))
def test_an_error_in_a_block_leaves_the_stream_whole(
    index: int, error: type[BaseException], card: Card, stream: Begin
) -> None:
    chain = Chain()
    before, wanted = state(chain), computed(chain, "cpu")
    one = stream(chain, resident=1)

    chain.layers[index].error = error
    for _ in range(2):
        with pytest.raises(error):
            computed(chain)
    chain.layers[index].error = None
    if index and error is Broken:
        with pytest.raises(RuntimeError, match="streamed"):
            chain.layers[index].inner(X.to(DEVICE))
    for _ in range(2):
        assert (computed(chain) - wanted).abs().max() <= 1e-6
    assert one.end() == {}
    assert card.live == 0
    assert state(chain) == before


# What a block writes


class Counter(nn.Module):
    """Counts its runs in a weight, in place or by a new one."""

    def __init__(self, renewed: bool) -> None:
        super().__init__()
        self.runs = nn.Parameter(torch.zeros(16), requires_grad=False)
        self.other = nn.Parameter(torch.ones(16), requires_grad=False)
        self.renewed = renewed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.renewed:
            self.runs = nn.Parameter(self.runs + 1, requires_grad=False)
        else:
            self.runs.add_(1)
        return x * self.other + self.runs


@pytest.mark.parametrize(("kept", "renewed"), [(0, False), (2, False), (5, False), (0, True)])
def test_a_write_into_a_block_is_kept_and_nothing_else_is_copied(
    kept: int, renewed: bool, card: Card, stream: Begin
) -> None:
    chain = Chain()
    chain.layers[1] = Counter(renewed)
    one = stream(chain, resident=kept)
    twin = Chain()
    twin.layers[1] = Counter(renewed)
    for _ in range(3):
        assert (computed(chain) - computed(twin, "cpu")).abs().max() <= 1e-6
    written = one.end()
    assert list(written) == ["layers.1.runs"]
    assert (written["layers.1.runs"] == 3).all()
    assert (chain.layers[1].runs == 0).all()
    assert card.live == 0


def test_a_write_into_weights_that_are_away_is_refused(stream: Begin) -> None:
    chain = Chain()
    stream(chain)
    with pytest.raises(RuntimeError, match="streamed"), torch.no_grad():
        chain.layers[3].inner.weight.mul_(2)
    with pytest.raises(RuntimeError, match="streamed"):
        chain.layers[3].inner(X.to(DEVICE))


def test_a_library_finds_all_weights_on_the_device_and_moves_none(card: Card, stream: Begin) -> None:
    chain = Chain()
    before = state(chain)
    one = stream(chain)
    assert {str(tensor.device) for tensor in chain.parameters()} == {DEVICE}
    to_device = card.to_device
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            chain.to(DEVICE)
    assert card.to_device == to_device
    one.end()
    assert state(chain) == before


# What fails


class Small(nn.Module):
    """A table, four blocks and a norm: all that a stream has, in few operations."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(500, 16)
        self.layers = nn.ModuleList(Step() for _ in range(4))
        self.norm = nn.LayerNorm(16)
        self.register_buffer("scale", torch.full((16,), 2.0), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.words(ids) * self.scale
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


IDS = torch.tensor([[3, 499, 3], [0, 7, 77]])


def encoded(module: nn.Module, device: str = DEVICE) -> torch.Tensor:
    with torch.inference_mode():
        return module(IDS.to(device)).cpu()


FAILURES = [("fail_allocation", "allocations"), ("fail_copy", "copies")]


@pytest.mark.parametrize(("fail", "counted"), FAILURES)
def test_a_failure_at_the_start_leaves_the_module_as_it_was(
    fail: str, counted: str, card: Card, uploader: Logged, stream: Begin
) -> None:
    module = Small()
    before = state(module)
    stream(module, resident=1).end()
    count = getattr(card, counted)
    assert count >= 2
    failed = 0
    for nth in range(1, count + 1):
        card.reset()
        getattr(card, fail)(nth)
        try:
            one = stream(module, resident=1)
            assert (encoded(module) - encoded(Small(), "cpu")).abs().max() <= 1e-6
            one.end()
        except RuntimeError:
            failed += 1
        assert card.live == 0, f"{fail} {nth}"
        assert state(module) == before
    assert failed == (count if fail == "fail_allocation" else count - 1)  # what was only sent ahead is sent again


@pytest.mark.parametrize(("fail", "counted"), FAILURES)
def test_a_failure_anywhere_in_a_batch_is_the_batchs_alone(
    fail: str, counted: str, card: Card, uploader: Logged, stream: Begin
) -> None:
    module = Small()
    wanted, before = encoded(module, "cpu"), state(module)
    one = stream(module, resident=1)
    encoded(module)
    held = card.live
    card.reset()
    encoded(module)
    count = getattr(card, counted)
    failed = 0
    for nth in range(1, count + 1):
        card.reset()
        getattr(card, fail)(nth)
        try:
            encoded(module)
        except RuntimeError:
            failed += 1
        card.reset()
        assert card.live == held, f"{fail} {nth}"
        assert (encoded(module) - wanted).abs().max() <= 1e-6, f"{fail} {nth}"
    # Every allocation, and every copy but the three that are sent ahead.
    assert failed == (count if fail == "fail_allocation" else count - 3)
    assert one.end() == {}
    assert card.live == 0
    assert state(module) == before


@pytest.mark.parametrize("nth", range(1, 7))
def test_what_a_failed_send_has_left_is_never_computed_on(nth: int, uploader: Logged, stream: Begin) -> None:
    chain = Chain()
    stream(chain)
    computed(chain)
    uploader.failing = nth
    for chain.order in ([0, 1, 2, 1, 0], [3, 2, 3, 1, 2, 1, 0], [4, 3, 4, 2, 3]):
        twin = Chain()
        twin.order = chain.order
        try:
            found = computed(chain)
        except OSError:
            found = computed(chain)
        assert (found - computed(twin, "cpu")).abs().max() <= 1e-6


def test_what_somebody_keeps_is_still_counted(card: Card, stream: Begin) -> None:
    chain = Chain()
    one = stream(chain, resident=1)
    kept = chain.layers[0].inner.weight
    one.end()
    assert one.nbytes == card.live > 0
    del kept
    assert one.nbytes == card.live == 0


@pytest.mark.parametrize("ended", [True, False])
def test_a_module_is_gone_as_soon_as_it_is_dismantled(ended: bool, card: Card, uploader: Logged, stream: Begin) -> None:
    chain = Chain()
    seen = take_inventory(chain)
    blocks = find_blocks(chain, seen.regions)
    one = Stream(blocks, seen.loose, DEVICE, room(blocks, seen, 1, 2), uploader, as_it_is)
    computed(chain)
    if ended:
        one.end()
    gone = [weakref.ref(part) for part in chain.modules()]
    gc.disable()
    try:
        dismantle(chain)
        del chain, seen, blocks
        if not ended:
            one.end()
        assert [ref() for ref in gone] == [None] * len(gone)
        assert card.live == 0
    finally:
        gc.enable()


# Tables


@pytest.fixture
def words() -> nn.Module:
    torch.manual_seed(0)
    module = nn.Module()
    module.words = nn.Embedding(500, 16, padding_idx=499)
    module.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(2))
    return module


@pytest.mark.parametrize(
    "ids",
    [torch.tensor([[3, 499, 3], [0, 7, 499]]), torch.tensor(4), torch.zeros(2, 0, dtype=torch.long), torch.arange(500)],
    ids=["rows", "one", "none", "all"],
)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("by_name", [False, True])
def test_rows_of_a_table_are_the_same_to_the_bit(
    ids: torch.Tensor, dtype: torch.dtype, by_name: bool, words: nn.Module, card: Card, stream: Begin
) -> None:
    ids = ids.to(dtype)
    wanted = words.words(ids).detach()
    one = stream(words)
    held = card.live
    with torch.inference_mode():
        found = words.words(input=ids.to(DEVICE)) if by_name else words.words(ids.to(DEVICE))
        assert torch.equal(found.cpu(), wanted)
    del found
    assert one.nbytes == card.live == held < words.words.weight.nbytes
    assert words.words.padding_idx == 499


@pytest.mark.parametrize("wrong", [500, -1])
def test_an_id_outside_a_table_is_an_index_error(wrong: int, words: nn.Module, stream: Begin) -> None:
    stream(words)
    with pytest.raises(IndexError):
        words.words(torch.tensor([wrong], device=DEVICE))
    with pytest.raises(RuntimeError):
        words.words(torch.tensor([0.5], device=DEVICE))
    assert words.words.padding_idx == 499
    assert words.words(torch.tensor([2], device=DEVICE)).shape == (1, 16)

"""A module's weights on a device that counts every byte: whole or not at all, and nothing comes back that need not."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_device import Card
from fake_runtime import Runtime, installed
from safetensors.torch import save_file
from torch import nn

from engine.devices.placement import Placement
from engine.errors import CannotRest, FilesChanged
from engine.weights.files.identity import Identity
from engine.weights.files.inventory import Region, take_inventory
from engine.weights.files.store import Store
from engine.weights.home import Home
from engine.weights.home_request import HomeRequest
from engine.weights.moves import pinned_copy
from engine.weights.moves.device_copy import DeviceCopy, copy_size
from engine.weights.moves.staging import Piece, Uploader

DEVICE = "fakegpu:0"
THERE = Placement(DEVICE)

Adopt = Callable[..., Home]


class Odd(nn.Module):
    """Every kind of weight: tied, aliased, of several types, turned, without dimensions, empty, not contiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))
        self.norm = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, 16, bias=False)
        self.head.weight = self.blocks[0].weight
        self.narrow = nn.Parameter(torch.randn(3, 5).half())
        self.turned = nn.Parameter(torch.randn(4, 6).t())
        self.empty = nn.Parameter(torch.zeros(0, 3))
        whole = torch.randn(32, 16)
        self.upper, self.lower = nn.Parameter(whole[:16]), nn.Parameter(whole[16:])
        self.register_buffer("mask", torch.tensor([True, False, True]), persistent=False)
        self.register_buffer("ids", torch.arange(7), persistent=False)
        self.register_buffer("across", torch.randn(6, 4)[:, ::2], persistent=False)
        self.register_buffer("down", torch.randn(6, 4).t(), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            inputs = torch.relu(block(inputs))
        inputs = self.head(self.norm(inputs)) @ self.upper + inputs @ self.lower
        return inputs + self.turned.sum() + self.across.sum() + self.down.sum() + self.ids[self.ids > 2].sum()


def odd() -> Odd:
    torch.manual_seed(0)
    return Odd().eval()


def plain(region: Region, offset: int) -> Piece:
    """Its bytes from where it lives."""
    return Piece(offset, region.flat.view(torch.uint8))


def tensors(module: nn.Module) -> dict[str, Any]:
    """What stands in the module, by every name of it."""
    return dict([*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)])


def values(module: nn.Module) -> dict[str, Any]:
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors(module).items()}


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def stand(module: nn.Module, wanted: dict[str, Any]) -> bool:
    now = tensors(module)
    return all(now[name] is tensor for name, tensor in wanted.items())


@pytest.fixture
def uploader(card: Card) -> Iterator[Uploader]:
    uploader = Uploader(DEVICE)
    yield uploader
    uploader.close()


@pytest.fixture
def runtime(card: Card, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    return installed(monkeypatch)


def copied_to_device(module: nn.Module, uploader: Uploader) -> DeviceCopy:
    seen = take_inventory(module)
    return DeviceCopy(seen.regions, seen.loose, DEVICE, uploader, plain)


# The copy itself


def test_nearly_everything_is_one_allocation_and_few_copies(card: Card, uploader: Uploader) -> None:
    module = odd()
    seen, wanted, before = take_inventory(module), tensors(module), values(module)
    inputs = torch.randn(5, 16)
    with torch.inference_mode():
        output = module(inputs)
        device_copy = copied_to_device(module, uploader)
        assert card.allocations == 4, "an arena, and three that keep a copy of their own: turned, cut, empty"
        assert card.copies <= 4
        assert card.live == device_copy.nbytes == copy_size(seen.regions, seen.loose)
        assert (module(inputs.to(DEVICE)).cpu() - output).abs().max() <= 1e-5
    assert all(tensor.device == torch.device(DEVICE) for tensor in tensors(module).values())
    assert same(values(module), before)
    assert module.head.weight is module.blocks[0].weight
    moved = card.to_host
    assert device_copy.end() == {}
    assert (card.to_host, card.live, device_copy.nbytes) == (moved, 0, 0)
    assert stand(module, wanted)


def test_tensors_that_are_mere_attributes_follow_the_weights_and_come_back(card: Card, uploader: Uploader) -> None:
    module = odd()
    module.plain = torch.linspace(0.5, 1.5, 16)
    module.also_ids = module.ids
    own, values_before = module.plain, module.plain.clone()
    device_copy = copied_to_device(module, uploader)
    assert module.plain.device == torch.device(DEVICE)
    assert module.also_ids is module.ids
    assert torch.equal(module.plain.cpu(), values_before)
    device_copy.end()
    assert module.plain is own
    assert card.live == 0


@pytest.mark.parametrize("fail", ["fail_allocation", "fail_copy"])
def test_a_failure_anywhere_leaves_the_module_and_the_device_as_they_were(
    card: Card, uploader: Uploader, fail: str
) -> None:
    module = odd()
    wanted, before = tensors(module), values(module)
    copied_to_device(module, uploader).end()
    count = card.allocations if fail == "fail_allocation" else card.copies
    assert count >= 3
    for nth in range(1, count + 1):
        getattr(card, fail)(nth)
        with pytest.raises(RuntimeError):
            copied_to_device(module, uploader)
        gc.collect()
        assert card.live == 0, nth
        assert stand(module, wanted)
    device_copy = copied_to_device(module, uploader)
    assert same(values(module), before)
    device_copy.end()


def test_only_what_was_written_into_comes_back(card: Card, uploader: Uploader) -> None:
    module = odd()
    device_copy = copied_to_device(module, uploader)
    with torch.no_grad():
        module.head.weight[2, 3] = 42  # tied to the first block's
        module.lower.mul_(2)  # its neighbour in memory is another parameter
        module.ids[0] = 5
    lower = module.lower.cpu().detach()
    before = card.to_host
    written = device_copy.end()
    assert set(written) == {"blocks.0.weight", "upper"} or set(written) == {"blocks.0.weight", "lower"}
    assert written["blocks.0.weight"].view(16, 16)[2, 3] == 42
    assert any(torch.equal(flat[-256:].view(16, 16), lower) for flat in written.values())
    assert card.to_host - before == sum(flat.nbytes for flat in written.values()) + module.ids.nbytes
    assert module.ids[0] == 5, "what no file has is where it was put"
    assert card.live == 0


def test_what_somebody_keeps_is_told_until_it_is_free(card: Card, uploader: Uploader, at_home: Adopt) -> None:
    module = odd()
    device_copy = copied_to_device(module, uploader)
    whole, kept = device_copy.nbytes, module.blocks[1].weight
    device_copy.end()
    assert 0 < device_copy.nbytes == card.live < whole
    del kept
    assert device_copy.nbytes == card.live == 0


# At home in files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    state = {name: tensor.clone().contiguous() for name, tensor in odd().state_dict().items() if tensor.numel()}
    save_file(state, path)
    return path


@pytest.fixture
def at_home(card: Card) -> Iterator[Adopt]:
    """Gives a module a home over a file; what a test leaves open is closed at its end."""
    with ExitStack() as closing:

        def begin(module: nn.Module, file: Path, **choices: Any) -> Home:
            store = Store(file.parent / "store")
            request = HomeRequest(sources=(Identity.of(file),), device=DEVICE, made_by="a test", **choices)
            home = Home(module, store, request)
            closing.callback(home.close)
            return home

        yield begin


def test_the_way_up_and_down_touches_no_page_and_copies_nothing_back(
    card: Card, tmp_path: Path, at_home: Adopt
) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(*(nn.Linear(512, 512) for _ in range(4)))
    path = tmp_path / "model.safetensors"
    save_file(module.state_dict(), path)
    home = at_home(module, path)
    wanted = tensors(module)
    for _ in range(3):
        before = card.to_device
        assert home.to_device(THERE) is None
        assert card.to_device - before == home.footprint().on_device == card.live == home.needs()[0]
        assert home.footprint().in_ram == 0
        assert home.offload().on_device == home.total
        assert (card.live, card.to_host) == (0, 0)
        assert stand(module, wanted)
    home.close()


def test_what_was_restored_into_its_home_is_what_goes_up(card: Card, file: Path, at_home: Adopt) -> None:
    module = odd()
    home = at_home(module, file)
    home.restore({"blocks.1.weight": torch.full((256,), 3.0)})
    home.to_device(THERE)
    assert (module.blocks[1].weight.cpu() == 3).all()
    assert torch.equal(module.blocks[2].weight.cpu(), odd().blocks[2].weight)
    home.close()


def test_a_file_that_changed_lends_nothing(card: Card, file: Path, at_home: Adopt) -> None:
    module = odd()
    home = at_home(module, file)
    wanted = tensors(module)
    os.utime(file, ns=(1, 1))
    with pytest.raises(FilesChanged, match="was changed since it was loaded"):
        home.to_device(THERE)
    gc.collect()
    assert card.live == 0
    assert stand(module, wanted)
    home.close()


def test_a_write_on_the_device_ends_the_rest_and_is_kept(card: Card, file: Path, at_home: Adopt) -> None:
    module = odd()
    home = at_home(module, file)
    home.to_device(THERE)
    with torch.no_grad():
        module.norm.bias.add_(1)
    with pytest.raises(CannotRest, match="writes into its own weights"):
        home.offload()
    assert list(home.writes()) == ["norm.bias"]
    home.close()
    assert card.live == 0


def test_a_parameter_that_somebody_keeps_counts_as_on_the_device(card: Card, file: Path, at_home: Adopt) -> None:
    module = odd()
    home = at_home(module, file)
    home.to_device(THERE)
    kept = module.blocks[0].weight
    home.offload()
    assert home.footprint().on_device == home.left == card.live > 0
    home.to_device(THERE)
    assert home.footprint().on_device == card.live
    home.close()
    del module
    gc.collect()
    assert not home.gone
    assert home.left == card.live > 0
    del kept
    assert home.gone
    assert home.left == card.live == 0


def test_threads_and_buffers_are_there_between_the_first_way_up_and_the_end(
    runtime: Runtime, card: Card, file: Path, at_home: Adopt
) -> None:
    homes = [at_home(odd(), file) for _ in range(2)]
    assert runtime.registered == {}
    for home in homes:
        home.to_device(THERE)
    assert runtime.registered
    homes[0].close()
    assert runtime.registered
    homes[1].close()
    assert runtime.registered == {}


# A pinned copy


def test_a_pinned_home_is_read_once_counted_and_released(
    runtime: Runtime, card: Card, file: Path, at_home: Adopt
) -> None:
    module = odd()
    home, before = at_home(module, file, keep="pinned"), values(odd())
    resting = home.footprint().in_ram
    assert home.to_device(THERE) is None
    assert same(values(module), before)
    nbytes = sum(region.flat.nbytes for region in home._regions)
    pinned = home.footprint().in_ram - resting
    assert nbytes <= pinned <= nbytes + 256 * len(home._regions)
    assert pinned in runtime.registered.values()
    home.offload()
    assert home.footprint().in_ram - resting == pinned
    os.utime(file, ns=(1, 1))  # it would be noticed if the file were read again
    home.to_device(THERE)
    assert same(values(module), before)
    home.close()
    assert runtime.registered == {}
    assert card.live == 0


def test_where_memory_cannot_be_pinned_the_file_stays_the_home_and_a_note_says_so(
    runtime: Runtime, card: Card, file: Path, at_home: Adopt
) -> None:
    runtime.refuses = True
    module = odd()
    home, before = at_home(module, file, keep="pinned"), values(odd())
    resting = home.footprint().in_ram
    for _ in range(2):
        note = home.to_device(THERE)
        assert note == (
            "Its home is its file, because no pinned copy could be made: "
            "the driver of its device pins no memory of ours."
        )
        assert same(values(module), before)
        home.offload()
    assert home.footprint().in_ram == resting
    home.close()


def test_a_pinned_copy_larger_than_what_is_left_of_ram_is_not_made(
    runtime: Runtime, card: Card, file: Path, monkeypatch: pytest.MonkeyPatch, at_home: Adopt
) -> None:
    monkeypatch.setattr(pinned_copy, "_available", lambda: 1000)
    home = at_home(odd(), file, keep="pinned")
    assert "more than the 1000 that the system has left" in str(home.to_device(THERE))
    home.close()


# Streamed, on disk, in another type


def test_a_module_larger_than_its_share_runs_block_by_block(card: Card, file: Path, at_home: Adopt) -> None:
    module, inputs = odd(), torch.randn(5, 16)
    with torch.inference_mode():
        wanted = module(inputs)
    home = at_home(module, file)
    whole, least = home.needs()
    assert least is not None
    assert least < whole
    with torch.inference_mode():
        note = home.to_device(Placement(DEVICE, least, "for a test"))
        assert "Streamed" in str(note)
        assert home.footprint().on_device == card.live <= least
        for _ in range(2):
            assert (module(inputs.to(DEVICE)).cpu() - wanted).abs().max() <= 1e-5
    home.offload()
    assert card.live == 0
    home.close()


def test_an_encoder_whose_home_is_the_disk_leaves_its_device_and_does_not_rest(
    card: Card, file: Path, at_home: Adopt
) -> None:
    module = odd()
    home = at_home(module, file, keep="disk")
    assert home.cannot_rest == "Its home is the disk, so stepping down unloads it."
    home.to_device(THERE)
    with pytest.raises(CannotRest, match="Its home is the disk"):
        home.offload()
    assert card.live == 0
    assert home.writes() == {}
    home.close()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_an_element_type_that_was_asked_for_is_what_goes_up(card: Card, file: Path, dtype: str, at_home: Adopt) -> None:
    module = odd()
    home = at_home(module, file, dtype=dtype)
    home.to_device(THERE)
    wanted = odd().to(getattr(torch, dtype))
    for name, parameter in wanted.named_parameters():
        assert torch.equal(tensors(module)[name].cpu(), parameter), name
    assert module.across.dtype is torch.float32, "as the library made it"
    assert home.footprint().on_device == card.live
    home.offload()
    home.close()
    assert card.live == 0

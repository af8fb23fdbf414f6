"""The fake accelerator itself: what the tests of the engine on a device rest on."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_device import BACKEND, UNLIMITED, Card, OnCard
from small_models import bert, xlm_roberta
from torch import nn

from engine.adapters.sources import locate as references

MODES = pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
DEVICES = pytest.mark.parametrize("device", ["fakegpu", "fakegpu:1"])
TEXTS = ["A pilot light is the small flame that stays lit.", "Was kostet ein Liter Oel?", "short", "flames " * 90]

Mode = Callable[[], AbstractContextManager[Any]]


def layers() -> nn.Sequential:
    """Four parameters: 256, 32, 256 and 32 bytes."""
    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)).eval()


def sentence_transformer(folder: str | Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def minilm() -> Any:
    return sentence_transformer(references.locate("builtin:all-MiniLM-L6-v2").source)


# Where tensors are


@DEVICES
@MODES
def test_a_tensor_moves_there_and_back(cards: tuple[Card, ...], device: str, mode: Mode) -> None:
    with mode():
        there = torch.arange(6.0).reshape(2, 3).to(device)
        assert there.device == torch.device("fakegpu", 1 if device.endswith("1") else 0)
        for back in (there.cpu(), there.to("cpu"), (there * 2).to("cpu", torch.float64) / 2):
            assert type(back) is torch.Tensor
            assert back.tolist() == [[0, 1, 2], [3, 4, 5]]


@DEVICES
@MODES
def test_tensors_are_made_on_the_device(cards: tuple[Card, ...], device: str, mode: Mode) -> None:
    with mode():
        made = [
            torch.empty(2, 2, device=device),
            torch.zeros(3, device=device),
            torch.full((2,), 7.0, device=device),
            torch.arange(1, 9, 2, device=device),
            torch.tensor([1, 2, 3], device=device),
            torch.eye(2, device=device),
            torch.ones(2).new_zeros(2, device=device),
        ]
        assert {tensor.device for tensor in made} == {torch.device(device if ":" in device else "fakegpu:0")}
        assert made[3].tolist() == [1, 3, 5, 7]
        assert made[4].sum().item() == 6
        assert torch.zeros_like(made[0], device="cpu").device.type == "cpu"


def test_inference_tensors_are_those_that_torch_would_make(card: Card) -> None:
    plain = torch.zeros(4).to("fakegpu")
    with torch.inference_mode():
        made, view = plain + 1, plain[1:]
        host = made.cpu()
    found = [tensor.is_inference() for tensor in (plain, made, made[1:], host, view, made + 1)]
    assert found == [False, True, True, True, False, False]
    plain.add_(view.sum())
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor"):
        made.add_(1)


@MODES
def test_devices_do_not_mix_in_one_op(cards: tuple[Card, ...], mode: Mode) -> None:
    with mode():
        here, first, second = torch.ones(3), torch.ones(3).to("fakegpu"), torch.ones(3).to("fakegpu:1")
        for one, other in ((here, first), (first, here), (first, second), (first, second.sum()), (here, first.sum())):
            with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
                one + other
        with pytest.raises(RuntimeError, match="same device"):
            torch.cat([first, here])
        with pytest.raises(RuntimeError, match="same device"):
            nn.functional.linear(first, torch.ones(3, 3))


def test_scalars_and_indices_of_the_cpu_mix_with_the_devices_tensors(card: Card) -> None:
    there = torch.arange(3.0).to("fakegpu")
    assert (there * torch.tensor(2.0)).tolist() == [0, 2, 4]
    assert there[torch.tensor([2, 0])].tolist() == [2, 0]
    with pytest.raises(RuntimeError, match="same device"):
        torch.arange(3)[there.long()]


def test_a_device_tensor_has_no_numpy_array(card: Card) -> None:
    there = torch.ones(2).to("fakegpu")
    with pytest.raises(TypeError, match="can't convert fakegpu:0 device type tensor to numpy"):
        there.numpy()
    assert there.numpy(force=True).tolist() == [1, 1]
    assert repr(there) == "OnCard(tensor([1., 1.]), device='fakegpu:0')"


def test_a_card_that_is_not_there_is_refused(cards: tuple[Card, ...]) -> None:
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.empty(1, device="fakegpu:2")
    BACKEND.visible = 1
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.ones(1).to("fakegpu:1")


def test_an_op_that_would_change_a_tensors_shape_in_place_is_refused(card: Card) -> None:
    with pytest.raises(NotImplementedError, match="changes the shape"):
        torch.zeros(2, 3).to("fakegpu").t_()


# What is counted


@MODES
def test_live_bytes_count_once_for_a_storage_and_end_with_its_last_view(card: Card, mode: Mode) -> None:
    with mode():
        flat = torch.zeros(100).to("fakegpu")
        view = flat.as_strided((3, 4), (4, 1), 10)
        narrower = view[1:].t()
        assert (card.live, card.allocations) == (400, 1)
        assert narrower.untyped_storage().nbytes() == 400
        del flat, view
        assert card.live == 400
        del narrower
    assert (card.live, card.peak) == (0, 400)


@MODES
def test_views_share_what_is_written(card: Card, mode: Mode) -> None:
    with mode():
        flat = torch.zeros(6, device="fakegpu")
        view = flat.as_strided((2, 2), (2, 1), 1)
        view.copy_(torch.ones(2, 2), non_blocking=True)
        flat[0].fill_(5)
        assert flat.tolist() == [5, 1, 1, 1, 1, 0]
        assert view.data_ptr() == flat.data_ptr() + 4


@MODES
def test_an_op_that_fails_leaves_nothing_live(card: Card, mode: Mode) -> None:
    with mode():
        there = torch.ones(2, 3).to("fakegpu")
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            (there + 1) @ (there + 2)
        gc.collect()  # the traceback holds the frames of the op
        assert card.live == 24
        card.fail_allocation(2)
        with pytest.raises(torch.OutOfMemoryError):
            (there + 1) * 2
        gc.collect()
    assert card.live == 24


@MODES
def test_copies_are_counted_for_each_direction(cards: tuple[Card, ...], mode: Mode) -> None:
    first, second = cards
    with mode():
        here = torch.zeros(10)
        there = here.to("fakegpu:0")
        assert (first.copies, first.to_device, first.to_host) == (1, 40, 0)
        there.copy_(here, non_blocking=True)
        assert (first.copies, first.to_device, first.to_host) == (2, 80, 0)
        here.copy_(there, non_blocking=True)
        there.cpu()
        assert (first.copies, first.to_device, first.to_host) == (4, 80, 80)
        there[0].item()
        assert (first.copies, first.to_device, first.to_host) == (5, 80, 84)
        there.clone().double().copy_(there)
        assert first.copies == 5
        there.to("fakegpu:1")
        assert (second.copies, second.to_device, second.from_other_card, first.copies) == (1, 0, 40, 5)
        torch.tensor([1, 2], device="fakegpu:1")
        assert (second.copies, second.to_device) == (2, 16)


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_the_nth_copy_fails_and_only_that(card: Card, nth: int) -> None:
    card.fail_copy(nth)
    for number in range(1, 5):
        with pytest.raises(RuntimeError, match="a copy of 8 bytes failed") if number == nth else nullcontext():
            torch.ones(2).to("fakegpu")
    assert (card.copies, card.to_device) == (4, 24)
    card.fail_copy()
    with pytest.raises(RuntimeError, match="failed"):
        torch.ones(2, device="fakegpu").cpu()


def test_a_capacity_is_kept(card: Card) -> None:
    card.capacity = 100
    half = torch.zeros(15, device="fakegpu")
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate 60 bytes on card 0: 60 live"):
        half + 1
    fits = torch.zeros(10, device="fakegpu")
    assert (card.live, card.peak, card.allocations) == (100, 100, 3)
    del fits
    card.used_by_others = 1
    with pytest.raises(torch.OutOfMemoryError, match="1 used by others, of 100"):
        torch.zeros(10, device="fakegpu")
    assert card.live == 60


def test_freed_bytes_are_kept_until_the_cache_is_emptied(card: Card) -> None:
    card.capacity, card.keeps_freed_bytes = 100, True
    torch.zeros(20, device="fakegpu")
    assert (card.live, BACKEND.memory_reserved(0), BACKEND.mem_get_info(0)) == (0, 80, (20, 100))
    again = torch.zeros(15, device="fakegpu")
    assert (card.live, card.reserved) == (60, 80)
    more = torch.zeros(10, device="fakegpu")
    assert (card.live, card.reserved) == (100, 100)
    del again, more
    torch.fakegpu.empty_cache()
    assert (card.reserved, card.cache_emptied) == (0, 1)


def test_a_share_of_the_card_bounds_what_lives_and_what_is_kept(cards: tuple[Card, ...]) -> None:
    card, other = cards
    gpu: Any = torch.fakegpu
    card.capacity, card.keeps_freed_bytes = 1000, True
    _kept = torch.zeros(10, device="fakegpu")
    torch.zeros(40, device="fakegpu")
    gpu.set_per_process_memory_fraction(0.1, 0)
    assert (card.live, card.cached) == (40, 160)
    with pytest.raises(torch.OutOfMemoryError, match=r"Tried to allocate 64 bytes .* of 1000, 100 allowed"):
        torch.zeros(16, device="fakegpu")
    again = torch.zeros(15, device="fakegpu:0")
    assert (card.live, card.reserved, card.limit) == (100, 100, 100)
    torch.zeros(40, device="fakegpu:1")
    gpu.set_per_process_memory_fraction(0.12, "fakegpu:0")
    del again
    smaller = torch.zeros(10, device="fakegpu")
    assert (card.live, card.reserved) == (80, 100)
    gpu.set_per_process_memory_fraction(1.0)
    more = torch.zeros(230, device="fakegpu")
    assert card.reserved == 1000
    del smaller, more
    gpu.set_per_process_memory_fraction(0.0)
    card.reset()
    torch.zeros(40, device="fakegpu")
    assert (card.limit, other.limit) == (None, None)


def test_a_share_that_torch_would_refuse_is_refused(card: Card) -> None:
    gpu: Any = torch.fakegpu
    for share, error in ((1, TypeError), (-0.1, ValueError), (1.1, ValueError)):
        with pytest.raises(error, match="Invalid"):
            gpu.set_per_process_memory_fraction(share, 0)
    assert card.limit is None


def test_a_card_may_be_full_for_good_from_one_allocation_on(card: Card) -> None:
    card.fail_allocation(2, for_good=True)
    torch.zeros(4, device="fakegpu")
    for _ in range(3):
        with pytest.raises(torch.OutOfMemoryError):
            torch.zeros(4, device="fakegpu")
    card.reset()
    torch.zeros(4, device="fakegpu")
    assert card.allocations == 1


def test_a_reset_forgets_all_but_what_is_live(card: Card) -> None:
    kept = torch.zeros(4).to("fakegpu")
    card.capacity, card.used_by_others = 1000, 10
    card.fail_allocation()
    card.fail_copy()
    card.reset()
    assert (card.live, card.peak, card.allocations, card.copies, card.to_device) == (16, 16, 0, 0, 0)
    assert (card.capacity, card.used_by_others) == (None, 0)
    assert (kept + 1).cpu().tolist() == [1, 1, 1, 1]


def test_two_threads_at_once_keep_the_counts_right(card: Card) -> None:
    module = layers().to("fakegpu")
    held, wrong = card.live, []
    start = threading.Barrier(2)

    def work(rows: int) -> None:
        inputs = torch.arange(8.0 * rows).reshape(rows, 8)
        start.wait(60)
        with torch.inference_mode():
            expected = module(inputs.to("fakegpu")).cpu()
            for _ in range(299):
                if not torch.equal(module(inputs.to("fakegpu")).cpu(), expected):
                    wrong.append(rows)

    card.reset()
    threads = [threading.Thread(target=work, args=(rows,), name=f"rows {rows}") for rows in (1, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    gc.collect()
    assert not wrong
    assert card.live == held
    assert card.to_device == card.to_host == 300 * 51 * 8 * 4
    assert card.copies == 2 * 2 * 300
    assert held + 50 * 8 * 4 <= card.peak <= held + 2 * 51 * 8 * 4 * 2
    both = card.allocations
    card.reset()
    with torch.inference_mode():
        module(torch.zeros(1, 8).to("fakegpu"))
    assert both == 600 * card.allocations


# Modules


@DEVICES
def test_a_module_moves_there_and_back(cards: tuple[Card, ...], device: str) -> None:
    card, module, inputs = cards[device.endswith("1")], layers(), torch.arange(8.0)
    expected = module(inputs)
    module.to(device)
    assert (card.live, card.allocations, card.copies, card.to_device) == (576, 4, 4, 576)
    assert torch.equal(module(inputs.to(device)).cpu(), expected)
    module.to("cpu")
    assert (card.live, card.to_host) == (0, 576 + 32)
    assert torch.equal(module(inputs), expected)


def test_a_module_moves_from_card_to_card(cards: tuple[Card, ...]) -> None:
    module = layers().to("fakegpu:0")
    module.to("fakegpu:1")
    assert [card.live for card in cards] == [0, 576]
    assert cards[1].from_other_card == 576
    assert module(torch.ones(8).to("fakegpu:1")).device.index == 1


def test_parameters_made_of_one_flat_tensor_come_and_go_with_one_copy(card: Card) -> None:
    module, inputs = layers(), torch.arange(8.0)
    expected = module(inputs)
    at_home = {(part, name): p for part in module.modules() for name, p in part._parameters.items()}
    flat = torch.cat([p.detach().flatten() for p in at_home.values()])
    uploaded, offset = flat.to("fakegpu", non_blocking=True), 0
    for (part, name), p in at_home.items():
        view = uploaded.as_strided(p.shape, p.stride(), offset)
        part._parameters[name] = nn.Parameter(view, requires_grad=False)
        offset += p.numel()
    del uploaded, view
    assert all(isinstance(p, nn.Parameter) and p.is_fakegpu for p in module.parameters())
    assert (card.live, card.allocations, card.copies, card.to_device) == (576, 1, 1, 576)
    with torch.inference_mode():
        found = module(inputs.to("fakegpu"))
    assert torch.equal(found.cpu(), expected)
    before = card.to_host
    for (part, name), p in at_home.items():
        part._parameters[name] = p
    del found
    assert (card.live, card.to_host) == (0, before)
    assert torch.equal(module(inputs), expected)


def test_data_can_be_assigned_on_the_device_and_not_across(cards: tuple[Card, ...]) -> None:
    p = nn.Parameter(torch.zeros(4).to("fakegpu"))
    p.data = torch.ones(2).to("fakegpu:1")
    assert (cards[0].live, cards[1].live) == (0, 8)
    assert (p.device.index, p.tolist(), (p + 1).tolist()) == (1, [1, 1], [2, 2])
    with pytest.raises(RuntimeError, match="incompatible tensor type"):
        p.data = torch.zeros(4)
    assert p.tolist() == [1, 1]
    here = nn.Parameter(torch.zeros(2))
    with pytest.raises(RuntimeError, match="incompatible tensor type"):
        here.data = torch.zeros(2).to("fakegpu")


@MODES
def test_an_op_in_place_returns_its_own_tensor_of_two_that_share_their_data(card: Card, mode: Mode) -> None:
    with mode():
        one, other = torch.ones(2).to("fakegpu"), torch.full((2,), 3.0).to("fakegpu")
        one.data = other
        assert one.mul_(other) is one
        assert (one.tolist(), other.tolist(), card.live) == ([9, 9], [9, 9], 8)


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
@pytest.mark.parametrize("limit", ["allocation", "copy", "capacity"])
def test_a_move_that_fails_half_way_leaves_what_can_be_dropped(card: Card, nth: int, limit: str) -> None:
    module = layers()
    if limit == "allocation":
        card.fail_allocation(nth)
    elif limit == "copy":
        card.fail_copy(nth)
    else:
        card.capacity = [255, 287, 543, 575][nth - 1]
    with pytest.raises(RuntimeError) as caught:
        module.to("fakegpu")
    assert isinstance(caught.value, torch.OutOfMemoryError) is (limit != "copy")
    assert [isinstance(p, OnCard) for p in module.parameters()] == [number < nth for number in range(1, 5)]
    del caught
    gc.collect()
    assert card.live == [0, 256, 288, 544][nth - 1]
    del module
    gc.collect()
    assert card.live == 0


# What torch.fakegpu answers


def test_the_device_module_answers_what_an_adapter_asks(cards: tuple[Card, ...]) -> None:
    gpu: Any = torch.get_device_module("fakegpu")
    assert gpu is torch.fakegpu
    assert (gpu.is_available(), gpu.device_count(), gpu.current_device()) == (True, 2, 0)
    assert [gpu.get_device_name(device) for device in (0, "fakegpu:1")] == ["Fake GPU 0", "Fake GPU 1"]
    assert gpu.is_initialized()
    assert gpu.mem_get_info() == (UNLIMITED, UNLIMITED)
    cards[1].shares_ram = True
    found = [gpu.get_device_properties(device) for device in (0, "fakegpu:1")]
    assert [(one.name, one.total_memory, one.is_integrated) for one in found] == [
        ("Fake GPU 0", UNLIMITED, False),
        ("Fake GPU 1", UNLIMITED, True),
    ]
    cards[1].capacity, cards[1].used_by_others = 1000, 300
    torch.zeros(25, device="fakegpu:1")
    _kept = torch.zeros(5, device="fakegpu:1")
    for device in (1, "fakegpu:1", torch.device("fakegpu:1")):
        assert gpu.mem_get_info(device) == (680, 1000)
        assert (gpu.memory_allocated(device), gpu.max_memory_allocated(device)) == (20, 100)
    gpu.reset_peak_memory_stats(1)
    assert gpu.max_memory_allocated(1) == 20
    gpu.synchronize(1)
    gpu.empty_cache()
    assert [card.cache_emptied for card in cards] == [1, 1]
    torch.manual_seed(0)
    BACKEND.visible = 0
    assert not gpu.is_available()


def test_streams_and_events_order_nothing_and_keep_their_place(card: Card) -> None:
    gpu: Any = torch.fakegpu
    side, event = gpu.Stream("fakegpu"), gpu.Event()
    side.wait_stream(gpu.current_stream())
    with gpu.stream(side), gpu.stream(None):
        assert gpu.current_stream() is side
        there = torch.ones(2).to("fakegpu", non_blocking=True)
        there.record_stream(side)
        event.record()
        assert side.record_event(event) is event
    assert gpu.current_stream() is not side
    gpu.current_stream().wait_event(event)
    event.wait()
    event.synchronize()
    side.synchronize()
    assert event.query()
    assert side.query()
    assert event.elapsed_time(gpu.Event(enable_timing=True)) == 0
    assert side.device == torch.device("fakegpu:0")


# Real models


@pytest.mark.slow
def test_minilm_encodes_there_as_on_the_cpu(cards: tuple[Card, ...]) -> None:
    model = minilm()
    weights = sum(p.nbytes for p in [*model.parameters(), *model.buffers()])
    expected = model.encode(TEXTS)
    for card, device in zip(cards, ("fakegpu", "fakegpu:1"), strict=True):
        model.to(device)
        assert card.live == weights
        assert weights == card.to_device + card.from_other_card
        found = model.encode(TEXTS, device=device)
        gc.collect()
        assert np.abs(found - expected).max() <= 1e-6
        assert card.live == weights
        assert card.peak > weights
    model.to("cpu")
    assert [card.live for card in cards] == [0, 0]
    assert np.array_equal(model.encode(TEXTS), expected)


@MODES
@pytest.mark.parametrize("make", [bert, xlm_roberta])
def test_a_small_model_computes_there_as_on_the_cpu(
    card: Card, tmp_path: Path, make: Callable[[Path], Path], mode: Mode
) -> None:
    model = sentence_transformer(make(tmp_path / "model"))
    features = {k: v for k, v in model.preprocess(TEXTS).items() if isinstance(v, torch.Tensor)}
    with mode():
        expected = model(dict(features))["sentence_embedding"]
        model.to("fakegpu")
        found = model({key: value.to("fakegpu") for key, value in features.items()})["sentence_embedding"]
        assert found.device.type == "fakegpu"
        assert (found.cpu() - expected).abs().max() <= 1e-6


@MODES
def test_a_small_clip_computes_there_as_on_the_cpu(card: Card, mode: Mode) -> None:
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**sizes, "vocab_size": 99, "max_position_embeddings": 16, "eos_token_id": 98}
    vision = {**sizes, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()
    inputs = {
        "input_ids": torch.tensor([[1, 5, 9, 98, 0], [1, 7, 98, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]),
        "pixel_values": torch.randn(3, 3, 32, 32),
    }
    with mode():
        expected = model(**inputs)
        model.to("fakegpu")
        found = model(**{key: value.to("fakegpu") for key, value in inputs.items()})
        for key in ("text_embeds", "image_embeds", "logits_per_image"):
            assert (found[key].cpu() - expected[key]).abs().max() <= 1e-6, key


def test_minilm_in_half_precision_takes_half_the_bytes(card: Card) -> None:
    model = minilm()
    expected = model.encode(TEXTS)
    model.to("fakegpu", dtype=torch.bfloat16)
    assert card.live < 0.51 * sum(2 * p.nbytes for p in model.parameters())
    found = model.encode(TEXTS, device="fakegpu").astype(np.float32)
    assert (np.sum(found * expected, axis=1) > 0.99).all()

"""What is known of a device's memory, how much torch may take of it, and what happens where it runs out."""

from __future__ import annotations

import gc
from typing import Any

import psutil
import pytest
import torch
from fake_device import BACKEND, Card, OnCard

from engine.devices import Choice, DeviceMemory, allocated, choose, context, limit, memory, out_of_memory_on
from engine.devices.readings import SystemReader
from engine.errors import OutOfMemory

DEVICE = "fakegpu:0"


def fill(size: int, device: str = DEVICE) -> torch.Tensor:
    return torch.zeros(size, dtype=torch.uint8, device=device)


# What is there


def test_free_total_ours_and_others_are_told_apart(card: Card) -> None:
    card.capacity, card.used_by_others, card.keeps_freed_bytes = 1000, 300, True
    _living = fill(100)
    fill(50)
    found = memory(DEVICE)
    assert found == DeviceMemory(DEVICE, free=550, total=1000, ours=150, shared=False)
    assert found is not None
    assert found.others == 300
    assert context(DEVICE) is None, "no driver of a card that is made up tells what a process uses"


def test_a_device_that_shares_the_systems_memory_has_what_the_system_has(card: Card) -> None:
    card.capacity, card.shares_ram = 1000, True
    _living = fill(100)
    found = memory(DEVICE)
    assert found is not None
    assert (found.total, found.ours, found.shared) == (psutil.virtual_memory().total, 100, True)
    assert found.free == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_a_device_that_was_not_used_yet_holds_nothing_and_is_not_asked(
    card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BACKEND, "initialized", False)
    assert memory(DEVICE) == DeviceMemory(DEVICE, None, None, 0)
    assert allocated() == ()
    assert limit(DEVICE, None)
    assert card.limit is None


def test_a_device_that_is_lost_is_unknown(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(device: Any = None) -> int:
        raise RuntimeError("CUDA error: device not ready")

    living = fill(100)
    monkeypatch.setattr(BACKEND, "mem_get_info", lost)
    assert memory(DEVICE) == DeviceMemory(DEVICE, None, None, 100)
    monkeypatch.setattr(BACKEND, "memory_reserved", lost)
    found = memory(DEVICE)
    assert found == DeviceMemory(DEVICE, None, None, None)
    assert found is not None
    assert found.others is None
    monkeypatch.setattr(BACKEND, "get_device_properties", lost)
    assert [(one.name, one.memory.ours) for one in allocated()] == [("fakegpu:0", None), ("fakegpu:1", None)]
    assert not limit(DEVICE, 10)
    assert not limit(DEVICE, None)
    assert len(living) == 100
    del living  # what is logged keeps this frame alive for longer than the test


def test_a_card_that_is_not_there_is_unknown(card: Card) -> None:
    found = memory("fakegpu:7")
    assert found is not None
    assert (found.free, found.total, found.ours) == (None, None, None)


def test_a_reading_has_both_cards_with_what_torch_holds_of_each(cards: tuple[Card, ...]) -> None:
    cards[1].capacity = 1000
    _living = fill(100, "fakegpu:1")
    first, second = (one for one in SystemReader().read().devices if (one.device or "").startswith("fakegpu"))
    assert (first.device, first.name, first.allocated_vram) == ("fakegpu:0", "Fake GPU 0", 0)
    assert (second.allocated_vram, second.vram_total, second.vram_used, second.vram_free) == (100, 1000, 100, 900)
    assert (second.process_vram, second.context_bytes, second.others_vram) == (None, None, None)


# How much of it torch may take


@pytest.mark.parametrize("total", [980, 8 * 2**30 - 12345, 1 << 40])
@pytest.mark.parametrize("nbytes", [0, 1, 7, 31, 62, 979])
def test_a_limit_is_met_to_the_byte(card: Card, total: int, nbytes: int) -> None:
    card.capacity = total
    assert limit(DEVICE, nbytes)
    assert card.limit == nbytes
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        fill(nbytes + 1)
    fill(nbytes)


def test_a_limit_is_lifted_and_none_is_more_than_the_device_has(cards: tuple[Card, ...]) -> None:
    card, other = cards
    card.capacity = 1000
    assert limit(DEVICE, 10)
    assert limit(DEVICE, None)
    fill(1000)
    assert limit(DEVICE, 5000)
    assert (card.limit, other.limit) == (1000, None)


def test_what_can_have_no_limit_says_so(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(type(BACKEND), "set_per_process_memory_fraction")
    for device in ("cpu", "mps", DEVICE):
        assert (limit(device, 10), limit(device, None)) == (False, True)


# Which one is chosen


def test_a_device_without_room_works_all_the_same(cards: tuple[Card, ...]) -> None:
    full, other = cards
    full.capacity = 0
    assert choose(DEVICE) == Choice(DEVICE)
    full.capacity, full.limit = 1000, 0
    assert choose(DEVICE) == Choice(DEVICE)
    other.capacity = other.used_by_others = 1000
    assert choose("fakegpu") == Choice(DEVICE), "the one with more room still comes first"


def test_a_device_that_fails_otherwise_does_not_work(card: Card) -> None:
    card.fail_copy()
    said = "fakegpu error: a copy of 4 bytes failed"
    assert choose(DEVICE) == Choice("cpu", f"It computes on the CPU, because {DEVICE} does not compute: {said}.")


# Where it runs out


def test_a_lack_of_memory_is_our_error_and_says_what_was_asked_for(card: Card) -> None:
    card.capacity = 100
    with pytest.raises(OutOfMemory) as caught, out_of_memory_on(DEVICE):
        fill(101)
    assert caught.value.message.startswith("fakegpu:0 has no memory left for 101 bytes more: fakegpu out of memory.")
    assert caught.value.title == "Out of device memory"
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


def test_an_error_that_is_kept_holds_no_device_memory(card: Card) -> None:
    card.capacity = 100

    def first_try() -> None:
        held = fill(30)
        fill(100 - len(held) + 1)

    def compute() -> None:
        held = fill(40)
        try:
            first_try()
        except RuntimeError:
            fill(2 * len(held))

    with pytest.raises(OutOfMemory) as caught, out_of_memory_on(DEVICE):
        compute()
    assert caught.value.__cause__ is not None
    gc.collect()
    assert card.live == 0


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "MPS backend out of memory (MPS allocated: 8.00 GB). Tried to allocate 256 bytes on shared pool.",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "CUDA error: HIPBLAS_STATUS_NOT_INITIALIZED when calling `hipblasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "HIP error: hipErrorOutOfMemory",
        "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
    ],
)
def test_every_way_to_say_it_counts(card: Card, said: str) -> None:
    with pytest.raises(OutOfMemory) as caught, out_of_memory_on(DEVICE):
        raise RuntimeError(said)
    assert said.splitlines()[0] in caught.value.message
    assert "\n" not in caught.value.message


def test_torchs_advice_on_its_own_settings_is_left_out(card: Card) -> None:
    said = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 is full. "
    advice = "If reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF."
    with pytest.raises(OutOfMemory) as caught, out_of_memory_on("cuda:0"):
        raise torch.OutOfMemoryError(said + advice)
    assert caught.value.message == f"cuda:0 has no memory left for 20.00 MiB more: {said.strip()}"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasSetStream(handle, stream)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: not enough memory: out of memory"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        MemoryError("out of memory"),
        OutOfMemory("cuda:0 is full."),
        ValueError("out of memory"),
    ],
)
def test_every_other_error_passes_as_it_is(card: Card, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, out_of_memory_on(DEVICE):
        raise error
    assert caught.value is error


def test_what_runs_out_while_a_cpu_computes_is_not_translated(card: Card) -> None:
    card.capacity = 0
    with pytest.raises(torch.OutOfMemoryError), out_of_memory_on("cpu"):
        fill(1)


def test_an_error_that_did_not_happen_changes_nothing(card: Card) -> None:
    with out_of_memory_on(DEVICE):
        made = fill(3)
    assert isinstance(made, OnCard)

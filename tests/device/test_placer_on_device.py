"""Budgets, other programs and lack of memory, with the real encoder on a device that is not there but has limits."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from fake_device import Card

from engine import Config, EncoderConfig, Engine, Hardware, NoRoom, State
from engine.events import StateChanged
from engine.settings.budget import Budget

BUILTIN = "builtin:all-MiniLM-L6-v2"
GIB = 1 << 30
MIB = 1 << 20
TEXTS = ["a pilot light", "Was kostet ein Liter Öl?", "an encoder turns a text into a vector"]
TOTAL = 90_861_056
"""Bytes of the encoder's parameters and buffers."""
SPARE = 24 * MIB
"""More than a batch of these texts takes."""


@contextmanager
def engine_with(*names: str, **hardware: Any) -> Iterator[Engine]:
    settings = {"device": "fakegpu:0", "idle_timeout_seconds": 0, "minimum_residency_seconds": 0.0, **hardware}
    # Without a difference between them they would share one set of weights.
    ways = itertools.product((False, True), ("auto", "float32"))
    encoders = tuple(
        EncoderConfig(name=name, kind="dense", model=BUILTIN, dtype=dtype, trust_remote_code=trusted)
        for name, (trusted, dtype) in zip(names or ("minilm",), ways, strict=False)
    )
    with Engine(Config(hardware=Hardware(**settings), encoders=encoders)) as engine:
        yield engine


@pytest.fixture(scope="module")
def wanted() -> np.ndarray:
    with engine_with(device="cpu") as engine:
        return engine.dense("minilm").encode(TEXTS)


def vectors(engine: Engine, name: str = "minilm") -> np.ndarray:
    return engine.dense(name).encode(TEXTS)


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return bool(np.abs(left - right).max() <= 1e-6)


def gib(nbytes: int) -> str:
    return repr(nbytes / GIB)


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether it comes true in time: the offloader looks once a second."""
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(0.02)
    return True


# Budgets


def test_a_cap_for_one_lets_the_two_take_turns_on_the_device(card: Card, wanted: np.ndarray) -> None:
    with engine_with("one", "two", max_vram=gib(TOTAL + SPARE)) as engine:
        for name, other in [("one", "two"), ("two", "one"), ("one", "two")]:
            assert same(vectors(engine, name), wanted)
            assert (engine.view(name).state, engine.view(name).device) == (State.ON_DEVICE, "fakegpu:0")
            assert engine.view(other).state is not State.ON_DEVICE
        assert card.peak <= TOTAL + SPARE
        assert engine.view("one").loads == 1


def test_what_is_free_less_n_is_left_to_others(card: Card, wanted: np.ndarray) -> None:
    card.capacity = 3 * TOTAL
    with engine_with("one", "two", max_vram=f"-{gib(TOTAL + TOTAL // 2)}") as engine:
        assert same(vectors(engine, "one"), wanted)
        assert same(vectors(engine, "two"), wanted)
        assert card.peak <= 3 * TOTAL - (TOTAL + TOTAL // 2)
        assert engine.view("one").state is State.IN_RAM


def test_no_budget_lets_both_stay(card: Card) -> None:
    with engine_with("one", "two") as engine:
        vectors(engine, "one")
        vectors(engine, "two")
        assert [view.state for view in engine.views()] == [State.ON_DEVICE] * 2
        assert card.live >= 2 * TOTAL


@pytest.mark.slow
def test_a_list_limits_each_card_by_itself(cards: tuple[Card, Card], wanted: np.ndarray) -> None:
    most = (TOTAL + SPARE, TOTAL // 2)
    devices = {"one": "fakegpu:0", "two": "fakegpu:0", "elsewhere": "fakegpu:1"}
    encoders = tuple(
        EncoderConfig(name, "dense", BUILTIN, device=device, dtype="float32" if name == "two" else "auto")
        for name, device in devices.items()
    )
    hardware = Hardware(idle_timeout_seconds=0, minimum_residency_seconds=0.0, stream_layers=True)
    with Engine(Config(hardware=hardware, encoders=encoders)) as engine:
        # A settings file can name no fakegpu.
        listed = tuple((f"fakegpu:{index}", nbytes / GIB) for index, nbytes in enumerate(most))
        engine._placer._headroom.budget = Budget(listed=listed)
        for name in ("one", "elsewhere", "two", "elsewhere"):
            assert same(vectors(engine, name), wanted)
        one, two, elsewhere = engine.views()
        assert (one.state, two.state, elsewhere.state) == (State.IN_RAM, State.ON_DEVICE, State.ON_DEVICE)
        assert [view.device for view in (two, elsewhere)] == ["fakegpu:0", "fakegpu:1"]
        assert two.note is None
        assert str(elsewhere.note).startswith("Streamed")
        assert TOTAL <= cards[0].peak <= most[0]
        assert 0 < cards[1].peak <= most[1]


@pytest.mark.parametrize("budget", [2 * TOTAL, -TOTAL])
def test_a_closed_engine_leaves_no_limit_behind(card: Card, budget: int) -> None:
    card.capacity = 4 * TOTAL
    with engine_with(max_vram=gib(budget)) as engine:
        vectors(engine)
        assert card.limit is not None
        assert card.limit < card.total
    assert card.limit == card.total
    assert torch.zeros(3 * TOTAL, dtype=torch.uint8, device="fakegpu:0").nbytes > 2 * TOTAL


def test_a_pinned_encoder_keeps_its_place_and_the_other_computes_on_the_cpu(card: Card, wanted: np.ndarray) -> None:
    with engine_with("one", "two", max_vram=gib(TOTAL + SPARE)) as engine:
        engine.pin("one")
        vectors(engine, "one")
        told: list[str | None] = []
        engine.events.subscribe(lambda e: told.append(e.reason) if isinstance(e, StateChanged) and e.reason else None)
        assert same(vectors(engine, "two"), wanted)
        view = engine.view("two")
        assert (view.device, engine.view("one").state) == ("cpu", State.ON_DEVICE)
        assert str(view.note).startswith("It computes on the CPU, because fakegpu:0 has no room")
        vectors(engine, "two")
        assert told.count(view.note) == 1


def test_one_that_just_came_up_keeps_its_place_for_the_minimum_residency(card: Card) -> None:
    with engine_with("one", "two", max_vram=gib(TOTAL + SPARE), minimum_residency_seconds=3600.0) as engine:
        vectors(engine, "one")
        vectors(engine, "two")
        assert (engine.view("one").device, engine.view("two").device) == ("fakegpu:0", "cpu")


def test_with_on_no_room_error_the_request_fails_clearly_and_the_next_one_is_served(
    card: Card, wanted: np.ndarray
) -> None:
    card.capacity = TOTAL // 2
    with engine_with(on_no_room="error") as engine:
        with pytest.raises(NoRoom, match="fakegpu:0 has no room for the 87 MiB of minilm"):
            vectors(engine)
        assert (engine.view("minilm").state, card.live) == (State.IN_RAM, 0)
        card.capacity = None
        assert same(vectors(engine), wanted)
        assert engine.view("minilm").loads == 1


def test_from_the_cpu_it_goes_back_to_the_device_when_that_has_room_again(card: Card, wanted: np.ndarray) -> None:
    card.capacity = TOTAL // 2
    with engine_with() as engine:
        assert same(vectors(engine), wanted)
        assert engine.view("minilm").device == "cpu"
        card.capacity = None
        engine.offload("minilm")
        assert same(vectors(engine), wanted)
        assert (engine.view("minilm").device, engine.view("minilm").note) == ("fakegpu:0", None)


def test_while_it_is_used_on_the_cpu_it_goes_back_as_soon_as_the_device_has_room(
    card: Card, wanted: np.ndarray
) -> None:
    card.capacity = TOTAL // 2
    with engine_with() as engine:
        assert same(vectors(engine), wanted)
        assert same(vectors(engine), wanted)
        assert (engine.view("minilm").device, engine.view("minilm").loads) == ("cpu", 1)
        card.capacity = 2 * TOTAL
        assert same(vectors(engine), wanted)
        assert engine.view("minilm").device == "fakegpu:0"


@pytest.mark.parametrize("share", [2, 4])
def test_an_encoder_larger_than_its_budget_is_streamed_and_never_takes_more(
    card: Card, wanted: np.ndarray, share: int
) -> None:
    with engine_with(max_vram=gib(TOTAL // share), stream_layers=True) as engine:
        assert same(vectors(engine), wanted)
        assert same(vectors(engine), wanted)
        view = engine.view("minilm")
        assert view.device == "fakegpu:0"
        assert str(view.note).startswith("Streamed")
        assert 0 < card.peak <= TOTAL // share
        engine.offload("minilm")
        assert card.live == 0


def test_a_budget_of_just_the_weights_leaves_nothing_for_batches_so_they_are_streamed(
    card: Card, wanted: np.ndarray
) -> None:
    with engine_with(max_vram=gib(TOTAL), stream_layers=True) as engine:
        assert same(vectors(engine), wanted)
        assert card.peak <= TOTAL


def test_when_other_programs_take_what_was_free_the_next_use_is_streamed(card: Card, wanted: np.ndarray) -> None:
    card.capacity = 4 * TOTAL
    with engine_with(max_vram=f"-{gib(TOTAL)}", stream_layers=True, keep_free_vram=0) as engine:
        assert same(vectors(engine), wanted)
        assert engine.view("minilm").note is None
        card.used_by_others = 2 * TOTAL + TOTAL // 2
        assert same(vectors(engine), wanted)
        assert str(engine.view("minilm").note).startswith("Streamed")
        assert card.live <= TOTAL // 2


def test_blocks_read_at_start_wait_in_ram_and_not_on_the_device(card: Card, wanted: np.ndarray) -> None:
    with engine_with(max_vram=gib(TOTAL // 4), stream_layers=True, eager_load=True) as engine:
        assert eventually(lambda: engine.view("minilm").state is State.IN_RAM, seconds=60.0)
        view = engine.view("minilm", measured=True)
        assert view.bytes_in_ram is not None
        assert view.bytes_in_ram >= 0.95 * TOTAL
        assert (view.bytes_on_device, card.live, view.ignored_options) == (0, 0, ())
        assert same(vectors(engine), wanted)
        assert str(engine.view("minilm").note).startswith("Streamed")
        assert engine.view("minilm").loads == 1
        assert card.peak <= TOTAL // 4


# Other programs


@pytest.mark.slow
def test_an_idle_encoder_leaves_at_once_when_another_program_needs_the_memory(card: Card) -> None:
    card.capacity = 4 * GIB
    with engine_with() as engine:
        seen: list[StateChanged] = []
        engine.events.subscribe(lambda event: seen.append(event) if isinstance(event, StateChanged) else None)
        vectors(engine)
        assert not eventually(lambda: card.live == 0, seconds=1.5), "nobody needs it yet"
        card.used_by_others = 4 * GIB - TOTAL - 256 * MIB
        assert eventually(lambda: card.live == 0)
        assert "another program needs VRAM" in [event.reason for event in seen]


@pytest.mark.slow
def test_a_pinned_and_a_busy_one_stay_when_another_program_needs_the_memory(card: Card) -> None:
    card.capacity = 4 * GIB
    with engine_with("pinned", "busy", "idle") as engine:
        for name in ("pinned", "busy", "idle"):
            vectors(engine, name)
        engine.pin("pinned")
        done = threading.Event()
        request = engine.submit("busy", lambda adapter: done.wait(20.0))
        card.used_by_others = 4 * GIB - 3 * TOTAL
        assert eventually(lambda: engine.view("idle").state is State.IN_RAM)
        assert [engine.view(name).state for name in ("pinned", "busy")] == [State.ON_DEVICE] * 2
        done.set()
        assert request.result(10.0)
        assert eventually(lambda: engine.view("busy").state is State.IN_RAM)
        assert engine.view("pinned").state is State.ON_DEVICE


# Memory runs out


@pytest.mark.slow
@pytest.mark.parametrize("begin", ["unload", "offload"])
def test_out_of_memory_at_every_allocation_of_a_load_and_a_reload_ends_in_a_served_request(
    card: Card, wanted: np.ndarray, begin: str
) -> None:
    with engine_with(minimum_residency_seconds=5.0) as engine:
        vectors(engine)
        getattr(engine, begin)("minilm")
        before = card.allocations
        engine.load("minilm")
        count = card.allocations - before
        assert count > 0
        for nth in range(1, count + 1):
            getattr(engine, begin)("minilm")
            assert card.live == 0
            card.fail_allocation(nth)
            engine.load("minilm")
            assert_consistent(engine, card)
            assert same(vectors(engine), wanted), f"allocation {nth} of {count}"


@pytest.mark.slow
def test_out_of_memory_at_every_allocation_of_a_batch_ends_in_a_served_request(card: Card, wanted: np.ndarray) -> None:
    with engine_with(minimum_residency_seconds=5.0) as engine:
        dense = engine.dense("minilm")
        dense.encode(TEXTS[:1])
        before = card.allocations
        dense.encode(TEXTS[:1])
        count = card.allocations - before
        assert count > 50
        for nth in range(1, count + 1):
            card.fail_allocation(nth)
            assert same(dense.encode(TEXTS[:1]), wanted[:1]), f"allocation {nth} of {count}"
            assert_consistent(engine, card)
        assert engine.view("minilm").loads == 1


def test_a_streamed_batch_that_finds_no_memory_again_and_again_is_computed_on_the_cpu(
    card: Card, wanted: np.ndarray
) -> None:
    with engine_with(max_vram=gib(TOTAL // 4), stream_layers=True) as engine:
        vectors(engine)
        held = card.live
        card.capacity = held + 4096
        assert same(vectors(engine), wanted)
        assert (engine.view("minilm").device, card.live) == ("cpu", 0)
        assert (engine.view("minilm").in_flight, engine.view("minilm").error) == (0, None)
        card.capacity = None
        engine.offload("minilm")
        assert same(vectors(engine), wanted)
        assert (engine.view("minilm").device, card.live) == ("fakegpu:0", held)


def test_out_of_memory_at_every_allocation_with_on_no_room_error_is_served_or_said(
    card: Card, wanted: np.ndarray
) -> None:
    with engine_with(on_no_room="error") as engine:
        vectors(engine)
        for count in (1, 2, 3):
            engine.offload("minilm")
            card.capacity = 0
            with pytest.raises(NoRoom):
                vectors(engine)
            assert (engine.view("minilm").state, engine.view("minilm").in_flight, card.live) == (State.IN_RAM, 0, 0)
            card.capacity = None
            assert same(vectors(engine), wanted), f"after failure {count}"


def assert_consistent(engine: Engine, card: Card) -> None:
    """All of the weights are on the device, and nothing else is."""
    view = engine.view("minilm")
    assert (view.state, view.in_flight, view.error) == (State.ON_DEVICE, 0, None)
    assert view.device == "fakegpu:0"
    assert view.bytes_on_device == card.live
    assert TOTAL <= card.live < TOTAL + MIB


def test_a_card_that_is_out_of_memory_at_every_allocation_leaves_the_encoder_serving_on_the_cpu(
    card: Card, wanted: np.ndarray
) -> None:
    with engine_with() as engine:
        vectors(engine)
        engine.offload("minilm")
        card.capacity = 0
        assert same(vectors(engine), wanted)
        assert (engine.view("minilm").device, card.live) == ("cpu", 0)


def test_batches_are_halved_until_they_fit_and_what_worked_is_remembered(card: Card) -> None:
    texts = ["a text that takes memory while it is computed"] * 16
    with engine_with() as engine:
        resident = engine.dense("minilm").encode(texts)
        card.capacity = card.live + (card.peak - card.live) // 3
        card.peak = card.live
        assert same(engine.dense("minilm").encode(texts), resident)
        tried = card.allocations
        assert same(engine.dense("minilm").encode(texts), resident)
        assert engine.view("minilm").device == "fakegpu:0"
        assert engine.view("minilm").note is None
        size = engine.call("minilm", lambda adapter: adapter._batches.size)
        assert size in (2, 4, 8)
        again = card.allocations - tried
        card.capacity = None
        engine.dense("minilm").encode(texts)
        assert again == card.allocations - tried - again, "the second time nothing had to be tried"


def test_a_batch_without_memory_makes_an_idle_encoder_leave(card: Card, wanted: np.ndarray) -> None:
    with engine_with("one", "two", minimum_residency_seconds=3600.0) as engine:
        vectors(engine, "one")
        vectors(engine, "two")
        gc.collect()
        card.capacity = card.live + 64 * 1024
        assert same(vectors(engine, "two"), wanted)
        assert (engine.view("one").state, engine.view("two").device) == (State.IN_RAM, "fakegpu:0")


# A device that is lost


def test_a_device_that_stops_computing_is_left_for_the_cpu_within_the_request(card: Card, wanted: np.ndarray) -> None:
    with engine_with() as engine:
        vectors(engine)
        card.lost = True
        assert same(vectors(engine), wanted)
        view = engine.view("minilm")
        assert (view.state, view.device) == (State.ON_DEVICE, "cpu")
        assert "fakegpu:0 does not compute" in str(view.note)


def test_a_device_that_stops_computing_while_an_encoder_rests_is_left_for_the_cpu(
    card: Card, wanted: np.ndarray
) -> None:
    with engine_with() as engine:
        vectors(engine)
        engine.offload("minilm")
        card.lost = True
        assert same(vectors(engine), wanted)
        assert engine.view("minilm").device == "cpu"


def test_one_copy_that_fails_is_an_error_of_that_request_alone(card: Card, wanted: np.ndarray) -> None:
    with engine_with() as engine:
        vectors(engine)
        card.fail_copy()
        with pytest.raises(RuntimeError, match="copy"):
            vectors(engine)
        assert same(vectors(engine), wanted)
        assert engine.view("minilm").device == "fakegpu:0"


# Sleep


def test_before_sleep_the_device_is_empty_and_the_first_request_afterwards_brings_it_back(
    card: Card, wanted: np.ndarray
) -> None:
    with engine_with() as engine:
        engine.pin("minilm")
        vectors(engine)
        engine.suspend()
        assert card.live == 0
        engine.resume()
        assert same(vectors(engine), wanted)
        assert card.live >= TOTAL

"""The real encoder's way up and down on a device that is not there, which counts every byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_models
from fake_device import BACKEND, Card

from engine import Config, DenseProxy, EncoderConfig, Engine, Hardware, State
from engine.devices import choose

BUILTIN = "builtin:all-MiniLM-L6-v2"
TEXTS = ["a pilot light", "Was kostet ein Liter Öl?", "an encoder turns a text into a vector " * 20]
TOTAL = 90_861_056
"""Bytes of the encoder's parameters and buffers."""


def engine_on(device: str) -> Engine:
    hardware = Hardware(device=device, idle_timeout_seconds=0)
    return Engine(Config(hardware=hardware, encoders=(EncoderConfig(name="minilm", kind="dense", model=BUILTIN),)))


@pytest.fixture(scope="module")
def wanted() -> np.ndarray:
    with engine_on("cpu") as engine:
        return engine.dense("minilm").encode(TEXTS)


@pytest.fixture
def engine(card: Card) -> Iterator[Engine]:
    with engine_on("fakegpu:0") as engine:
        yield engine


@pytest.fixture
def dense(engine: Engine) -> DenseProxy:
    return engine.dense("minilm")


def test_the_vectors_are_those_of_the_cpu(dense: DenseProxy, wanted: np.ndarray) -> None:
    assert np.abs(dense.encode(TEXTS) - wanted).max() <= 1e-6


def test_the_weights_are_on_the_device_and_their_pages_given_back(
    engine: Engine, dense: DenseProxy, card: Card
) -> None:
    dense.encode(TEXTS)
    view = engine.view("minilm", measured=True)
    assert (view.device, view.bytes_on_device) == ("fakegpu:0", card.live)
    assert view.bytes_on_device == view.bytes_total
    assert view.bytes_in_ram is not None
    assert view.bytes_in_ram < 0.01 * card.live


def test_stepping_down_copies_nothing_to_the_host_and_leaves_nothing_on_the_device(
    engine: Engine, dense: DenseProxy, card: Card
) -> None:
    dense.encode(TEXTS)
    live, to_host, emptied = card.live, card.to_host, card.cache_emptied
    outcome = engine.offload("minilm")
    assert (outcome.result, outcome.state, outcome.freed_bytes) == ("done", State.IN_RAM, live)
    assert (card.live, card.to_host) == (0, to_host)
    assert card.cache_emptied > emptied


@pytest.mark.slow
def test_coming_back_copies_the_weights_once_and_gives_the_same_vectors(
    engine: Engine, dense: DenseProxy, card: Card
) -> None:
    first = dense.encode(TEXTS)
    live, moved = card.live, card.to_device
    for _ in range(3):
        engine.offload("minilm")
        before = card.to_device
        engine.load("minilm")
        assert card.to_device - before == live
        assert (dense.encode(TEXTS) == first).all()
    assert card.live == live
    assert moved >= live
    assert engine.view("minilm").loads == 1


def test_unloading_leaves_nothing_on_the_device(engine: Engine, dense: DenseProxy, card: Card) -> None:
    dense.encode(TEXTS)
    outcome = engine.unload("minilm")
    assert (outcome.result, outcome.state, card.live) == ("done", State.UNLOADED, 0)


@pytest.mark.slow
def test_a_write_on_the_device_is_kept(engine: Engine, dense: DenseProxy, card: Card) -> None:
    first = dense.encode(TEXTS)

    def damage(adapter: object) -> None:
        import torch

        with torch.no_grad():
            next(adapter._module.parameters()).mul_(0.5)  # type: ignore[attr-defined]

    engine.call("minilm", damage)
    changed = dense.encode(TEXTS)
    assert np.abs(changed - first).max() > 1e-3
    outcome = engine.offload("minilm")
    assert (outcome.state, card.live) == (State.UNLOADED, 0)
    assert "writes into its own weights" in str(engine.view("minilm").note)
    assert np.abs(dense.encode(TEXTS) - changed).max() <= 1e-6


def test_of_several_devices_the_one_with_most_free_memory_is_chosen(cards: tuple[Card, Card]) -> None:
    first, second = cards
    first.capacity = second.capacity = 10**9
    first.used_by_others = 10**8
    assert choose("fakegpu").device == "fakegpu:1"
    second.used_by_others = 2 * 10**8
    assert choose("fakegpu").device == "fakegpu:0"
    assert choose("fakegpu:1").device == "fakegpu:1"


def test_a_device_that_fails_the_probe_gives_way_to_the_next_and_then_to_the_cpu(cards: tuple[Card, Card]) -> None:
    first, second = cards
    first.fail_copy()
    assert choose("fakegpu").device == "fakegpu:1"
    first.reset()
    first.fail_copy()
    second.fail_copy()
    choice = choose("fakegpu")
    assert choice.device == "cpu"
    assert choice.reason is not None
    assert "fakegpu:0 does not compute" in choice.reason
    assert "fakegpu:1 does not compute" in choice.reason


def test_a_device_that_is_not_there_gives_the_cpu_and_the_reason(cards: tuple[Card, Card]) -> None:
    BACKEND.visible = 1
    try:
        choice = choose("fakegpu:1")
    finally:
        BACKEND.visible = 2
    assert choice.device == "cpu"
    assert "finds no fakegpu:1 here" in str(choice.reason)


def test_an_encoder_whose_device_fails_serves_from_the_cpu_and_says_why(card: Card, wanted: np.ndarray) -> None:
    card.fail_copy()
    with engine_on("fakegpu:0") as engine:
        assert (engine.dense("minilm").encode(TEXTS) == wanted).all()
        view = engine.view("minilm")
        assert view.device == "cpu"
        assert "fakegpu:0 does not compute" in str(view.note)
        engine.offload("minilm")
        assert engine.view("minilm").note == view.note


@pytest.mark.parametrize("room", [True, False])
def test_the_revision_is_that_of_where_it_computes(card: Card, tmp_path: Path, room: bool) -> None:
    model = str(small_models.bert(tmp_path / "small", dtype="bfloat16"))
    card.capacity = None if room else 1000
    hardware = Hardware(device="fakegpu:0", idle_timeout_seconds=0)
    with Engine(Config(hardware=hardware, encoders=(EncoderConfig("small", "dense", model),))) as engine:

        def look(adapter: Any) -> tuple[str, str]:
            adapter.encode(["a"])
            return adapter.revision, str(next(adapter._module.parameters()).dtype)

        wanted = "bfloat16" if room else "float32"
        revision, dtype = engine.call("small", look)
        assert (revision.partition("+")[2], dtype) == (wanted, f"torch.{wanted}")
        view = engine.view("small")
        assert (view.device, view.revision) == ("fakegpu:0" if room else "cpu", revision)

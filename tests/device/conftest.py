"""The fake accelerator, with cards that are as good as new for every test and must be empty after it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from fake_device import BACKEND, CARDS, Card, register


@pytest.fixture
def cards() -> Iterator[tuple[Card, ...]]:
    """`fakegpu:0` and `fakegpu:1`; fails a test that leaves anything alive on them."""
    register()
    before = _begin_anew()
    yield CARDS
    after = _begin_anew()
    # What a failed test before this one left may have been freed meanwhile.
    assert all(now <= then for now, then in zip(after, before, strict=True)), f"live: {before} before, {after} after"


@pytest.fixture
def card(cards: tuple[Card, ...]) -> Card:
    """`fakegpu:0`, which `fakegpu` means too."""
    return cards[0]


def _begin_anew() -> list[int]:
    if any(card.live for card in CARDS):
        gc.collect()  # a module is a cycle; with all the model libraries imported it takes half a second
    BACKEND.visible = len(CARDS)
    for card in CARDS:
        card.reset()
    return [card.live for card in CARDS]

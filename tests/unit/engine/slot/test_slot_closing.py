"""Closing a slot: it waits for leases and unloads the weights that a late move brought up."""

from __future__ import annotations

import threading

import pytest
from engine_fakes import LIMIT, SlotBench, failure, started

from engine.errors import Closed
from engine.state import State

ON_DEVICE, IN_RAM, UNLOADED = State.ON_DEVICE, State.IN_RAM, State.UNLOADED


def test_closing_waits_for_leases(bench: SlotBench) -> None:
    with bench.slot.lease():
        closing = started(lambda: bench.slot.close(LIMIT))
        bench.waiting.expect(1)
        assert not closing.done()
        assert bench.adapter.weights == {"device"}
        with pytest.raises(Closed):
            bench.use()
    assert closing.result(LIMIT) is True
    assert (bench.state, bench.adapter.weights) == (UNLOADED, set())


def test_closing_waits_with_a_limit_and_the_last_use_then_drops_everything(bench: SlotBench) -> None:
    with bench.slot.lease():
        assert bench.slot.close(0.0) is False
        assert bench.adapter.weights == {"device"}
    assert (bench.state, bench.adapter.weights) == (UNLOADED, set())


def test_closing_waits_for_the_drop_that_the_last_use_began(bench: SlotBench) -> None:
    gate = bench.adapter.hold("unload")
    leased, finish = threading.Event(), threading.Event()

    def use() -> None:
        with bench.slot.lease():
            leased.set()
            assert finish.wait(LIMIT)

    user = started(use)
    assert leased.wait(LIMIT)
    closing = started(lambda: bench.slot.close(LIMIT))
    bench.waiting.expect(1)
    finish.set()
    gate.reached()
    assert not closing.done()
    gate.open()
    assert closing.result(LIMIT) is True
    assert failure(user) is None
    assert bench.adapter.weights == set()


def test_closing_a_pinned_encoder_drops_it() -> None:
    bench = SlotBench(pinned=True)
    bench.use()
    assert bench.slot.close(0.0)
    assert bench.adapter.weights == set()


def test_a_load_that_outlives_the_close_is_dropped_at_its_end(bench: SlotBench) -> None:
    gate = bench.adapter.hold("load")
    users = [started(bench.use) for _ in range(3)]
    gate.reached()
    bench.waiting.expect(2)
    assert bench.slot.close(0.0) is False
    gate.open()
    assert all(isinstance(failure(user), Closed) for user in users)
    assert (bench.state, bench.adapter.weights) == (UNLOADED, set())


def test_a_move_to_ram_that_outlives_the_close_is_dropped_at_its_end(bench: SlotBench) -> None:
    bench.use()
    gate = bench.adapter.hold("offload")
    move = started(bench.slot.offload)
    gate.reached()
    assert bench.slot.close(0.0) is False
    gate.open()
    assert failure(move) is None
    assert (bench.state, bench.adapter.weights) == (UNLOADED, set())

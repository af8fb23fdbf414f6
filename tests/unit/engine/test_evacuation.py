"""What leaves a device before the computer sleeps, and what follows when one encoder takes another's place."""

from __future__ import annotations

from concurrent import futures
from concurrent.futures import Future

import pytest
from admission_fakes import WHOLE, Bench, engine_with, use
from engine_fakes import LIMIT, FakeAdapter, Gate, config, encoder, failure, started

from engine.engine import Engine
from engine.errors import Closed
from engine.state import EncoderView, State


def replaced_while_in_use(
    engine: Engine, adapters: dict[str, FakeAdapter]
) -> tuple[FakeAdapter, Gate, Future[EncoderView]]:
    """Let the settings replace the encoder `one` while a request computes on it, until the gate is opened."""
    old = adapters["one"]
    gate = old.hold("encode")
    request = started(lambda: use(engine, "one"))
    gate.reached()
    engine.apply(config(encoder("one", dtype="float16"), idle_timeout_seconds=0))
    return old, gate, request


def test_the_view_says_why_an_encoder_stepped_down_until_it_is_up_again() -> None:
    bench = Bench(WHOLE)
    bench.use()
    bench.slot.offload(reason="another program needs VRAM")
    assert bench.view().stepped_down_because == "another program needs VRAM"
    bench.use()
    assert bench.view().stepped_down_because is None


def test_before_sleep_everything_leaves_its_device_pinned_or_not_and_comes_back_at_the_next_use() -> None:
    engine, adapters = engine_with(encoder("one"), encoder("two", pin=True))
    with engine:
        use(engine, "one")
        use(engine, "two")
        engine.suspend(timeout=LIMIT)
        assert [view.state for view in engine.views()] == [State.IN_RAM, State.IN_RAM]
        assert all(adapter.weights == {"ram"} for adapter in adapters.values())
        use(engine, "two")
        assert engine.view("two").state is State.ON_DEVICE
        assert engine.view("two").pinned


def test_what_was_in_use_when_the_computer_fell_asleep_leaves_after_it_woke() -> None:
    engine, adapters = engine_with(encoder("one"))
    with engine:
        gate = adapters["one"].hold("encode")
        request = started(lambda: use(engine, "one"))
        gate.reached()
        engine.suspend(timeout=0.0)
        assert engine.view("one").state is State.ON_DEVICE
        waking = started(lambda: engine.resume(timeout=LIMIT))
        gate.open()
        assert failure(request) is None
        assert failure(waking) is None
        assert adapters["one"].weights == {"ram"}


def test_sleep_leaves_what_computes_on_the_cpu_and_loads_nothing() -> None:
    engine, adapters = engine_with(encoder("one", device="cpu"), encoder("two"))
    with engine:
        use(engine, "one")
        engine.suspend(timeout=LIMIT)
        assert engine.view("one").state is State.ON_DEVICE
        assert adapters["two"].calls == []


def test_an_evacuation_takes_the_first_moment_between_requests_although_more_of_them_wait() -> None:
    bench = Bench(WHOLE)
    gate = bench.adapter.hold("encode")
    first = started(bench.request)
    gate.reached()
    leaving = started(lambda: bench.slot.evacuate("sleep", LIMIT))
    bench.waiting.expect_together(1)
    second = started(bench.request)
    bench.waiting.expect_together(2)
    gate.open()
    assert leaving.result(LIMIT).state is State.IN_RAM
    assert failure(first) is failure(second) is None
    assert bench.adapter.moves == ["load", "resume", "offload", "resume"]


def test_one_that_was_in_use_for_too_long_comes_up_anew_before_its_next_use() -> None:
    bench = Bench(WHOLE)
    with bench.slot.lease():
        assert bench.slot.evacuate("the computer goes to sleep", 0.0).result == "busy"
    assert bench.state is State.ON_DEVICE
    bench.use()
    assert bench.adapter.moves == ["load", "resume", "offload", "resume"]
    bench.use()
    assert bench.adapter.moves.count("offload") == 1


def test_an_evacuation_at_the_end_of_the_program_leaves_nothing() -> None:
    bench = Bench(WHOLE)
    bench.use()
    gate = bench.adapter.hold("offload")
    leaving = started(lambda: bench.slot.evacuate("sleep", LIMIT))
    gate.reached()
    assert not bench.slot.close(0.0)
    gate.open()
    assert failure(leaving) is None
    assert bench.adapter.weights == set()


def test_sleep_waits_for_nobody_who_computes_on_the_cpu() -> None:
    engine, adapters = engine_with(encoder("one", device="cpu"))
    with engine:
        gate = adapters["one"].hold("encode")
        request = started(lambda: use(engine, "one"))
        gate.reached()
        engine.suspend(timeout=3600.0)
        gate.open()
        assert failure(request) is None


def test_one_that_the_settings_replaced_leaves_its_device_before_sleep_too() -> None:
    engine, adapters = engine_with(encoder("one"))
    with engine:
        old, gate, request = replaced_while_in_use(engine, adapters)

        def suspend() -> bool:
            engine.suspend(timeout=LIMIT)
            return "device" in old.weights

        leaving = started(suspend)
        futures.wait([leaving], timeout=0.2)
        gate.open()
        assert leaving.result(LIMIT) is False, "the computer must not sleep before it has left"
        assert failure(request) is None


def test_one_that_takes_anothers_place_comes_up_after_that_one_has_left() -> None:
    engine, adapters = engine_with(encoder("one"))
    with engine:
        old, gate, request = replaced_while_in_use(engine, adapters)
        new = adapters["one"]
        assert new is not old
        new.during = lambda call: call != "load" or not old.weights or pytest.fail("both are in memory")
        second = started(lambda: use(engine, "one"))
        with pytest.raises(TimeoutError):
            second.result(0.2)
        gate.open()
        assert failure(request) is failure(second) is None
        assert new.weights == {"device"}


def test_a_closed_engine_takes_no_settings() -> None:
    engine, adapters = engine_with(encoder("one"))
    with engine:
        use(engine, "one")
    with pytest.raises(Closed):
        engine.apply(config(encoder("one"), encoder("two")))
    assert list(adapters) == ["one"]

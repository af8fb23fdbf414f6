"""What a slot and its requests do without room: the next way, other encoders, the CPU, or a clear error."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import pytest
from engine_fakes import LIMIT, FakeAdapter, FakeClock, SlotBench, config, encoder, failure, started

from engine.engine import Engine
from engine.errors import Closed, DeviceLost, InvalidInput, LoadFailed, NoRoom, OutOfMemory
from engine.events import StateChanged
from engine.placement import CPU, Needs, Placement
from engine.serving import serve
from engine.slot import Slot
from engine.state import EncoderView, State
from engine.terms import Terms

GPU = "gpu"
FULL = OutOfMemory("gpu is full.")


class Doorkeeper:
    """Offers the placements that it is given, then says no; and does what a batch without memory asks of it."""

    def __init__(self, *offers: Placement) -> None:
        self.offers = offers
        self.asked: list[Needs] = []
        self.misplaced_by: list[str | None] = []
        self.cleared: list[tuple[str, str]] = []
        self.tightenings = 0
        self.inside = 0

    @contextmanager
    def turn(self, device: str) -> Iterator[None]:
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    def placements(self, name: str, needs: Needs) -> Iterator[Placement]:
        self.asked.append(needs)
        yield from self.offers
        raise NoRoom("gpu has no room.", retry_in_seconds=1.0)

    def misplaced(self, name: str, device: str) -> str | None:
        return self.misplaced_by.pop(0) if self.misplaced_by else None

    def clear(self, device: str, *, spare: str) -> None:
        self.cleared.append((device, spare))

    def tighten(self, name: str) -> bool:
        self.tightenings -= 1
        return self.tightenings >= 0


class Bench(SlotBench):
    def __init__(self, *offers: Placement, pinned: bool = False) -> None:
        super().__init__()
        self.door = Doorkeeper(*offers)
        self.slot = Slot(
            "minilm",
            self.adapter,
            Terms(30.0, 900.0),
            pinned=pinned,
            room=self.door,
            publish=lambda event: self.events.append(event),
            clock=self.clock,
        )
        self.slot._changed = self.waiting

    def request(self, operation: Any = lambda adapter: adapter.encode(["a"]).vectors) -> Any:
        return serve(self.slot, self.door, operation, None, None)

    @property
    def reasons(self) -> list[str | None]:
        """Why the encoder came up as it did."""
        return [e.reason for e in self.events if isinstance(e, StateChanged) and e.new is State.ON_DEVICE]


WHOLE, STREAMED = Placement(GPU), Placement(GPU, 50)
ELSEWHERE = Placement(CPU, reason="It computes on the CPU, because gpu has no room for it.")


# Climbs


def test_the_first_way_that_fits_is_taken() -> None:
    bench = Bench(WHOLE, STREAMED)
    bench.use()
    assert bench.adapter.placements == [WHOLE]
    assert bench.door.asked == [Needs(GPU, 100)]


def test_a_climb_that_ran_out_of_memory_goes_the_next_way_and_the_view_says_how_it_stands() -> None:
    bench = Bench(WHOLE, STREAMED)
    bench.adapter.fail("resume", FULL)
    bench.use()
    assert bench.adapter.placements == [STREAMED]
    assert (bench.state, bench.view().note) == (State.ON_DEVICE, "Streamed in 50 bytes.")
    assert bench.reasons == [None], "streaming is as asked: nobody is told"


def test_without_room_it_is_read_for_the_cpu_instead_and_that_is_told_once() -> None:
    bench = Bench(ELSEWHERE)
    bench.use()
    view = bench.view()
    assert (view.device, view.chosen_device, view.note) == (CPU, GPU, ELSEWHERE.reason)
    bench.slot.offload()
    bench.use()
    assert bench.reasons == [ELSEWHERE.reason, None]
    assert bench.adapter.moves.count("load") == 2, "one for the device, one for the CPU; none at coming back"


def test_it_is_read_for_the_device_again_when_there_is_room_again() -> None:
    bench = Bench(ELSEWHERE)
    bench.use()
    bench.slot.offload()
    bench.door.offers = (WHOLE,)
    bench.use()
    assert (bench.view().device, bench.view().note) == (GPU, None)
    assert bench.adapter.weights == {"device"}


def test_without_any_way_the_weights_rest_in_ram_and_the_next_use_tries_again_at_once() -> None:
    bench = Bench()
    with pytest.raises(NoRoom, match="no room") as caught:
        bench.use()
    assert caught.value.retry_in_seconds == 1.0
    assert (bench.state, bench.adapter.weights, bench.view().error) == (State.IN_RAM, {"ram"}, None)
    assert bench.view().note == "gpu has no room."
    assert bench.view().in_flight == 0
    bench.door.offers = (WHOLE,)
    bench.use()
    assert (bench.state, bench.view().note, bench.view().loads) == (State.ON_DEVICE, None, 1)


def test_that_there_is_no_room_is_told_once_however_often_an_app_tries() -> None:
    bench = Bench()
    for _ in range(3):
        with pytest.raises(NoRoom):
            bench.use()
    told = [event.reason for event in bench.events if isinstance(event, StateChanged) and event.reason]
    assert told == ["gpu has no room."]


def test_without_any_way_what_cannot_rest_is_unloaded() -> None:
    bench = Bench()
    bench.adapter.cannot_rest = "It writes into its own weights."
    with pytest.raises(NoRoom):
        bench.use()
    assert (bench.state, bench.adapter.weights) == (State.UNLOADED, set())


def test_everyone_who_waits_for_a_climb_without_room_gets_the_error() -> None:
    bench = Bench()
    gate = bench.adapter.hold("load")
    first = started(bench.use)
    gate.reached()
    second = started(bench.use)
    gate.open()
    assert isinstance(failure(first), NoRoom)
    assert isinstance(failure(second), NoRoom)


def test_a_load_that_fails_for_another_reason_is_a_failed_load() -> None:
    bench = Bench(WHOLE)
    bench.adapter.fail("resume", RuntimeError("the cable is out"))
    with pytest.raises(LoadFailed, match="the cable is out"):
        bench.use()
    assert (bench.state, bench.adapter.weights) == (State.FAILED, set())


def test_one_that_cannot_rest_is_not_read_again_for_every_request_that_finds_no_room() -> None:
    bench = Bench()
    bench.adapter.cannot_rest = "Its home is the disk."
    for _ in range(3):
        with pytest.raises(NoRoom):
            bench.use()
    assert bench.adapter.moves.count("load") == 1
    bench.clock.now += 1.0
    bench.door.offers = (WHOLE,)
    bench.use()
    assert bench.state is State.ON_DEVICE


def test_the_turn_at_a_device_ends_before_an_encoder_is_read_for_the_cpu() -> None:
    bench = Bench(ELSEWHERE)
    inside: list[int] = []
    bench.adapter.during = lambda call: inside.append(bench.door.inside) if call in ("load", "resume") else None
    bench.use()
    assert inside == [0, 0, 0], "nobody else waits while files are read"
    other = Bench(WHOLE)
    other.adapter.during = lambda call: inside.append(other.door.inside) if call == "resume" else None
    other.use()
    assert inside[-1] == 1


# Lost devices

LOST = DeviceLost("gpu does not compute any more.")


def test_a_device_that_is_lost_at_a_climb_is_left_at_once_for_one_that_computes() -> None:
    bench = Bench(WHOLE)
    bench.use()
    bench.slot.offload()
    bench.adapter.fail("resume", LOST)
    bench.use()
    assert (bench.state, bench.view().loads) == (State.ON_DEVICE, 2)


def test_a_device_that_is_lost_twice_in_a_row_is_a_failed_load() -> None:
    bench = Bench(WHOLE)
    bench.adapter.fail("resume", LOST, LOST)
    with pytest.raises(LoadFailed, match="does not compute any more"):
        bench.use()
    assert bench.state is State.FAILED


def test_a_request_whose_device_is_lost_is_served_by_fresh_weights() -> None:
    bench = Bench(WHOLE)
    bench.adapter.fail("encode", LOST)
    assert bench.request() == [[1.0]]
    assert bench.adapter.moves == ["load", "resume", "unload", "load", "resume"]
    assert "gpu does not compute any more." in [e.reason for e in bench.events if isinstance(e, StateChanged)]


def test_a_request_that_loses_every_device_is_an_error_and_the_next_one_begins_anew() -> None:
    bench = Bench(WHOLE)
    bench.adapter.fail("encode", LOST, LOST)
    with pytest.raises(DeviceLost):
        bench.request()
    assert bench.view().in_flight == 0
    assert bench.request() == [[1.0]]


# Uses


def test_one_that_outgrew_its_budget_steps_down_and_comes_up_anew_before_it_is_used() -> None:
    bench = Bench(WHOLE)
    bench.use()
    bench.door.offers = (STREAMED,)
    bench.door.misplaced_by = ["over the VRAM budget"]
    bench.use()
    assert bench.adapter.placements == [WHOLE, STREAMED]
    assert bench.adapter.moves == ["load", "resume", "offload", "resume"]


def test_a_batch_without_memory_runs_once_more_after_others_stepped_down() -> None:
    bench = Bench(WHOLE)
    bench.adapter.fail("encode", FULL)
    assert bench.request() == [[1.0]]
    assert bench.door.cleared == [(GPU, "minilm")]
    assert bench.adapter.moves == ["load", "resume"]


def test_a_batch_that_never_fits_brings_the_encoder_up_another_way() -> None:
    bench = Bench(WHOLE)
    bench.door.tightenings = 1
    bench.adapter.fail("encode", FULL, FULL)
    bench.adapter.during = lambda call: setattr(bench.door, "offers", (STREAMED,)) if call == "offload" else None
    assert bench.request() == [[1.0]]
    assert bench.adapter.placements == [WHOLE, STREAMED]


def test_a_batch_that_fits_in_no_way_is_a_clear_error_and_the_encoder_serves_on() -> None:
    bench = Bench(WHOLE)
    bench.adapter.fail("encode", FULL, FULL)
    with pytest.raises(NoRoom, match="no memory left for a request to minilm") as caught:
        bench.request()
    assert "shorter inputs" in str(caught.value)
    assert bench.view().in_flight == 0
    assert bench.request() == [[1.0]]


def test_a_pinned_encoder_does_not_move_for_its_batches_either() -> None:
    bench = Bench(WHOLE, pinned=True)
    bench.door.tightenings = 1
    bench.adapter.fail("encode", FULL, FULL)
    with pytest.raises(NoRoom):
        bench.request()
    assert bench.state is State.ON_DEVICE
    assert bench.door.tightenings == 1


def test_another_error_of_a_request_is_its_own() -> None:
    bench = Bench(WHOLE)
    bench.adapter.fail("encode", InvalidInput("no text"))
    with pytest.raises(InvalidInput):
        bench.request()
    assert bench.door.cleared == []


# Sleep


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
        old = adapters["one"]
        gate = old.hold("encode")
        request = started(lambda: use(engine, "one"))
        gate.reached()
        engine.apply(config(encoder("one", dtype="float16"), idle_timeout_seconds=0))

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
        old = adapters["one"]
        gate = old.hold("encode")
        request = started(lambda: use(engine, "one"))
        gate.reached()
        engine.apply(config(encoder("one", dtype="float16"), idle_timeout_seconds=0))
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


def engine_with(*encoders: Any) -> tuple[Engine, dict[str, FakeAdapter]]:
    adapters: dict[str, FakeAdapter] = {}

    def build(settings: Any, device: str) -> FakeAdapter:
        adapters[settings.name] = FakeAdapter(settings, "gpu" if device == "auto" else device)
        return adapters[settings.name]

    return Engine(config(*encoders, idle_timeout_seconds=0), adapter=build, clock=FakeClock()), adapters


def use(engine: Engine, name: str) -> EncoderView:
    engine.call(name, lambda adapter: adapter.encode(["a"]))
    return engine.view(name)

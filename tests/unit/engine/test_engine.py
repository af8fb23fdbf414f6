"""Every configured encoder behind one door: threads, settings, names and the control verbs."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from engine_fakes import LIMIT, SIZE, FakeAdapter, FakeClock, FakeReader, Gate, Shelf, config, encoder, failure, started

from engine import Closed, Config, Engine, InvalidInput, LoadFailed, QueueFull, State, Unavailable, UnknownEncoder
from engine.devices.placement import Footprint
from engine.events import Event, SettingsApplied, StateChanged
from engine.residency.policy import Decision, Step
from engine.serving.worker import Worker


class Bench:
    """An engine over fake adapters that runs no thread until asked."""

    def __init__(self, settings: Config | None = None) -> None:
        self.shelf, self.clock, self.reader = Shelf(), FakeClock(), FakeReader()
        self.engine = Engine(settings or config(), adapter=self.shelf, reader=self.reader, clock=self.clock)
        self.events: list[Event] = []
        self._settled = threading.Condition()
        self.engine.events.subscribe(self._on_event)

    def _on_event(self, event: Event) -> None:
        with self._settled:
            self.events.append(event)
            self._settled.notify_all()

    def until(self, name: str, state: State) -> None:
        """Return once the encoder has reached `state`."""
        with self._settled:
            assert self._settled.wait_for(lambda: self.engine.view(name).state is state, LIMIT)

    def use(self, name: str = "one", keep_alive: float | None = None) -> list[str]:
        return self.engine.call(name, lambda adapter: list(adapter.weights), keep_alive=keep_alive)

    def drain(self, *names: str) -> None:
        """Return once everything that was queued for these encoders until now is done."""
        for name in names:
            self.engine._encoders.find(name).worker.submit(lambda: None).result(LIMIT)

    @property
    def states(self) -> dict[str, State]:
        return {view.name: view.state for view in self.engine.views()}


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.engine.close()


@pytest.fixture
def before() -> set[threading.Thread]:
    return set(threading.enumerate())


def new_threads(before: set[threading.Thread]) -> set[str]:
    return {thread.name for thread in set(threading.enumerate()) - before}


def ended(worker: Worker) -> None:
    """Return once a worker that was told to finish has."""
    assert worker._thread is not None
    worker._thread.join(LIMIT)
    assert not worker._thread.is_alive()


# Nothing until asked


def test_importing_the_engine_imports_no_heavy_library() -> None:
    heavy = ("torch", "numpy", "psutil", "pynvml", "fastapi", "uvicorn", "transformers", "PIL", "pystray", "tray")
    code = f"import engine, sys; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "[]"


def test_importing_and_building_start_no_thread_and_import_no_torch() -> None:
    code = (
        "import sys, threading, engine; built = engine.Engine(); built.dense(); built.views(); "
        "print(threading.active_count(), 'torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.split() == ["1", "False"]


def test_the_engine_starts_no_thread_until_asked(before: set[threading.Thread], bench: Bench) -> None:
    bench.engine.dense("one")
    bench.engine.views()
    bench.engine.pin("one")
    bench.engine.apply(config(encoder("one"), encoder("three"), lazy_encoders=False))
    assert new_threads(before) == set()
    bench.use()
    assert new_threads(before) == {"engine-one"}
    bench.engine.apply(config(encoder("one"), encoder("three")))
    bench.engine.start()
    assert new_threads(before) == {"engine-one", "engine-offloader"}
    assert bench.engine.close()
    assert new_threads(before) == set()


def test_the_engine_is_ready_from_its_start_to_its_close(bench: Bench) -> None:
    assert not bench.engine.ready
    with bench.engine:
        assert bench.engine.ready
    assert not bench.engine.ready


# lazy_encoders


def test_lazy_encoders_load_nothing_at_start(bench: Bench) -> None:
    bench.engine.start()
    assert set(bench.states.values()) == {State.UNLOADED}
    assert bench.shelf["one"].calls == []


def test_eager_encoders_all_load_at_start_and_say_so() -> None:
    bench = Bench(config(lazy_encoders=False))
    gates: list[Gate] = [bench.shelf[name].hold("load") for name in ("one", "two")]
    bench.engine.start()
    for gate in gates:
        gate.reached()
    assert set(bench.states.values()) == {State.LOADING}
    for gate in gates:
        gate.open()
    for name in ("one", "two"):
        bench.until(name, State.ON_DEVICE)
    bench.engine.close()


def test_one_eager_encoder_that_fails_stops_no_other() -> None:
    bench = Bench(config(lazy_encoders=False))
    bench.shelf["one"].fail("load", RuntimeError("no"))
    bench.engine.start()
    bench.until("one", State.FAILED)
    bench.until("two", State.ON_DEVICE)
    bench.engine.close()


def test_switched_to_false_all_that_sleep_are_loaded(bench: Bench) -> None:
    bench.engine.start()
    bench.use("one")
    bench.engine.apply(config(lazy_encoders=False))
    bench.until("two", State.ON_DEVICE)
    assert bench.shelf["one"].moves == ["load", "resume"]


def test_switched_to_true_nothing_changes() -> None:
    bench = Bench(config(lazy_encoders=False))
    bench.engine.start()
    for name in ("one", "two"):
        bench.until(name, State.ON_DEVICE)
    bench.engine.apply(config(lazy_encoders=True))
    assert set(bench.states.values()) == {State.ON_DEVICE}
    assert bench.shelf["one"].moves == ["load", "resume"]
    bench.engine.close()


def test_another_setting_wakes_no_encoder_that_sleeps_while_lazy_is_false() -> None:
    bench = Bench(config(lazy_encoders=False))
    bench.engine.start()
    for name in ("one", "two"):
        bench.until(name, State.ON_DEVICE)
    bench.engine.unload("one")
    bench.engine.apply(config(lazy_encoders=False, idle_timeout_seconds=5.0))
    bench.engine.apply(config(encoder("one"), lazy_encoders=False))
    assert bench.engine._encoders.find("one").worker.submit(lambda: None).result(LIMIT) is None
    assert bench.states == {"one": State.UNLOADED}
    bench.engine.close()


def test_encoders_added_or_replaced_while_lazy_load_nothing(before: set[threading.Thread], bench: Bench) -> None:
    bench.engine.start()
    bench.engine.apply(config(encoder("one", model="org/better"), encoder("three")))
    assert new_threads(before) == {"engine-offloader"}
    assert set(bench.states.values()) == {State.UNLOADED}


def test_an_encoder_added_while_lazy_is_false_is_loaded() -> None:
    bench = Bench(config(encoder("one"), lazy_encoders=False))
    bench.engine.start()
    bench.until("one", State.ON_DEVICE)
    bench.engine.apply(config(encoder("one"), encoder("two"), lazy_encoders=False))
    bench.until("two", State.ON_DEVICE)
    bench.engine.close()


# eager_load, and both for one encoder


@pytest.mark.parametrize(
    ("hardware", "own", "rung"),
    [
        ({}, {}, State.UNLOADED),
        ({"eager_load": True}, {}, State.IN_RAM),
        ({"lazy_encoders": False}, {}, State.ON_DEVICE),
        ({"lazy_encoders": False, "eager_load": True}, {}, State.ON_DEVICE),
        ({}, {"eager_load": True}, State.IN_RAM),
        ({}, {"lazy_encoders": False}, State.ON_DEVICE),
        ({"eager_load": True}, {"eager_load": False}, State.UNLOADED),
        ({"eager_load": True}, {"lazy_encoders": False}, State.ON_DEVICE),
        ({"lazy_encoders": False}, {"lazy_encoders": True}, State.UNLOADED),
        ({"lazy_encoders": False}, {"lazy_encoders": True, "eager_load": True}, State.IN_RAM),
        ({"lazy_encoders": False}, {"eager_load": False}, State.ON_DEVICE),
        ({"lazy_encoders": False, "eager_load": True}, {"lazy_encoders": True}, State.IN_RAM),
        ({"lazy_encoders": False, "eager_load": True}, {"lazy_encoders": True, "eager_load": False}, State.UNLOADED),
    ],
)
def test_at_start_an_encoder_goes_as_far_up_as_its_own_settings_say_or_else_those_for_all(
    hardware: dict[str, bool], own: dict[str, bool], rung: State
) -> None:
    bench = Bench(config(encoder("one", **own), **hardware))
    bench.engine.start()
    assert bench.engine._encoders.find("one").worker.at_work is (rung is not State.UNLOADED)
    bench.drain("one")
    assert bench.states == {"one": rung}
    expected = {State.UNLOADED: [], State.IN_RAM: ["load"], State.ON_DEVICE: ["load", "resume"]}
    assert bench.shelf["one"].moves == expected[rung]
    assert ("fault_in" in bench.shelf["one"].calls) is (rung is not State.UNLOADED)
    bench.engine.close()


def test_one_encoders_own_eagerness_brings_up_no_other() -> None:
    bench = Bench(config(encoder("one", eager_load=True), encoder("two"), encoder("three", lazy_encoders=False)))
    bench.engine.start()
    bench.drain("one", "two", "three")
    assert bench.states == {"one": State.IN_RAM, "two": State.UNLOADED, "three": State.ON_DEVICE}
    bench.engine.close()


@pytest.mark.parametrize(
    ("hardware", "rung"), [({"eager_load": True}, State.IN_RAM), ({"lazy_encoders": False}, State.ON_DEVICE)]
)
def test_an_eager_encoder_that_fails_shows_it_and_stops_nothing(hardware: dict[str, bool], rung: State) -> None:
    bench = Bench(config(encoder("one"), encoder("two"), encoder("three"), **hardware))
    bench.shelf["one"].fail("load", RuntimeError("bad block"))
    bench.shelf["two"].fail("probe", Unavailable("torch is missing.", next_step="pip install torch"))
    bench.engine.start()
    bench.drain("one", "two", "three")
    assert bench.states == {"one": State.FAILED, "two": State.UNAVAILABLE, "three": rung}
    errors = [view.error for view in bench.engine.views()]
    assert [error.message for error in errors if error] == [
        "one could not be loaded: RuntimeError: bad block",
        "torch is missing.",
    ]
    assert bench.engine.ready
    bench.clock.now += 5.0
    assert [bench.use(name) for name in ("one", "two", "three")] == [["device"]] * 3
    bench.engine.close()


def test_an_eager_encoders_idle_timer_runs_from_the_end_of_its_load() -> None:
    bench = Bench(config(encoder("one"), lazy_encoders=False))

    def take_seven_seconds(call: str) -> None:
        bench.clock.now += 7.0 if call == "load" else 0.0

    bench.shelf["one"].during = take_seven_seconds
    bench.engine.start()
    bench.drain("one")
    view = bench.engine.view("one")
    assert (view.last_used, view.next_deadline(bench.clock.now)) == (1007.0, 1037.0)
    bench.engine.close()


def test_an_encoder_in_ram_since_the_start_goes_up_at_its_first_use_and_waits_for_it_as_long_as_it_takes() -> None:
    bench = Bench(config(encoder("one"), eager_load=True))
    bench.engine.start()
    bench.drain("one")
    bench.clock.now += 1e6
    assert bench.engine._offloader.tick() is None
    assert bench.states == {"one": State.IN_RAM}
    assert bench.use() == ["device"]
    assert bench.shelf["one"].moves == ["load", "resume"]
    assert bench.engine.view("one").reload_seconds is not None
    bench.engine.close()


@pytest.mark.parametrize("change", ["for all", "for one"])
def test_eager_load_switched_on_reads_those_that_sleep_into_ram_and_leaves_the_others(
    change: str, bench: Bench
) -> None:
    bench.engine.start()
    bench.use("one")
    one, two = encoder("one", eager_load=True), encoder("two", eager_load=True)
    bench.engine.apply(config(eager_load=True) if change == "for all" else config(one, two))
    bench.drain("one", "two")
    assert bench.states == {"one": State.ON_DEVICE, "two": State.IN_RAM}
    assert [bench.shelf[name].moves for name in ("one", "two")] == [["load", "resume"], ["load"]]


@pytest.mark.parametrize(
    ("before", "after", "rung"),
    [
        # One encoder alone.
        (({}, {}, {}), ({}, {"eager_load": True}, {}), State.IN_RAM),
        (({}, {}, {}), ({}, {"lazy_encoders": False}, {}), State.ON_DEVICE),
        (({"eager_load": True}, {"eager_load": False}, {}), ({"eager_load": True}, {}, {}), State.IN_RAM),
        (({"lazy_encoders": False}, {"lazy_encoders": True}, {}), ({"lazy_encoders": False}, {}, {}), State.ON_DEVICE),
        # For all, while the other says for itself what it said before.
        (({}, {}, {"eager_load": True}), ({"eager_load": True}, {}, {"eager_load": True}), State.IN_RAM),
        (({}, {}, {"lazy_encoders": True}), ({"lazy_encoders": False}, {}, {"lazy_encoders": True}), State.ON_DEVICE),
        # The other comes to the same by other words.
        (({}, {}, {"eager_load": True}), ({"eager_load": True}, {}, {}), State.IN_RAM),
        (({}, {}, {"lazy_encoders": False}), ({"lazy_encoders": False}, {}, {}), State.ON_DEVICE),
        # From one eagerness to the other.
        (({"eager_load": True}, {}, {}), ({"eager_load": True}, {"lazy_encoders": False}, {}), State.ON_DEVICE),
        # Less of it.
        (({"eager_load": True}, {}, {}), ({"eager_load": True}, {"eager_load": False}, {}), State.UNLOADED),
    ],
)
def test_switching_eagerness_brings_up_only_those_for_which_it_changed(
    before: tuple[dict[str, bool], ...], after: tuple[dict[str, bool], ...], rung: State
) -> None:
    hardware, one, two = before
    bench = Bench(config(encoder("one", **one), encoder("two", **two), **hardware))
    bench.engine.start()
    bench.drain("one", "two")
    bench.engine.unload_all()
    hardware, one, two = after
    bench.engine.apply(config(encoder("one", **one), encoder("two", **two), **hardware))
    bench.drain("one", "two")
    assert bench.states == {"one": rung, "two": State.UNLOADED}
    bench.engine.close()


def test_from_ram_at_start_to_the_device_at_start_takes_only_the_way_up() -> None:
    bench = Bench(config(encoder("one"), eager_load=True))
    bench.engine.start()
    bench.drain("one")
    bench.engine.apply(config(encoder("one"), lazy_encoders=False))
    bench.drain("one")
    assert bench.shelf["one"].moves == ["load", "resume"]
    bench.engine.apply(config(encoder("one"), eager_load=True))
    bench.drain("one")
    assert bench.states == {"one": State.ON_DEVICE}
    bench.engine.close()


def test_an_encoder_added_or_replaced_while_eager_is_read_into_ram() -> None:
    bench = Bench(config(encoder("one"), eager_load=True))
    bench.engine.start()
    bench.drain("one")
    bench.engine.apply(config(encoder("one", model="org/better"), encoder("two"), eager_load=True))
    bench.drain("one", "two")
    assert bench.states == {"one": State.IN_RAM, "two": State.IN_RAM}
    bench.engine.close()


# New settings


@pytest.mark.parametrize("change", [{"model": "org/better"}, {"device": "cuda:1"}])
def test_a_changed_model_or_device_replaces_the_encoder_and_the_others_keep_their_weights(
    bench: Bench, change: dict[str, str]
) -> None:
    bench.use("one")
    bench.use("two")
    old, kept = bench.shelf["one"], bench.shelf["two"]
    last = bench.engine._encoders.find("one").worker
    bench.engine.apply(config(encoder("one", **change), encoder("two")))
    assert bench.states == {"one": State.UNLOADED, "two": State.ON_DEVICE}
    bench.use("one")
    assert bench.shelf["one"] is not old
    assert bench.shelf["two"] is kept
    assert kept.moves == ["load", "resume"]
    ended(last)
    assert old.weights == set()


def test_a_changed_default_device_replaces_those_that_follow_it() -> None:
    bench = Bench(config(encoder("one"), encoder("two", device="cpu"), device="cpu"))
    old_one, old_two = bench.shelf["one"], bench.shelf["two"]
    bench.engine.apply(config(encoder("one"), encoder("two", device="cpu"), device="cuda"))
    assert (bench.shelf["one"] is old_one, bench.shelf["two"] is old_two) == (False, True)
    assert bench.shelf["one"].device == "cuda"
    bench.engine.close()


def test_a_replaced_encoder_still_answers_what_waited_for_it(bench: Bench) -> None:
    gate = bench.shelf["one"].hold("load")
    waiting = [bench.engine.submit("one", lambda adapter: adapter.config.model) for _ in range(3)]
    gate.reached()
    old = bench.shelf["one"]
    last = bench.engine._encoders.find("one").worker
    bench.engine.apply(config(encoder("one", model="org/better")))
    gate.open()
    assert [future.result(LIMIT) for future in waiting] == ["org/one"] * 3
    assert bench.engine.call("one", lambda adapter: adapter.config.model) == "org/better"
    ended(last)
    assert old.weights == set()


def test_a_request_that_meets_a_replacement_half_way_goes_to_the_new_encoder(bench: Bench) -> None:
    encoders = bench.engine._encoders
    stale, find = [encoders.find("one")], encoders.find
    bench.engine.apply(config(encoder("one", model="org/better")))
    encoders.find = lambda name: stale.pop() if stale else find(name)  # type: ignore[method-assign]
    assert bench.engine.call("one", lambda adapter: adapter.config.model) == "org/better"
    assert not stale


def test_closing_says_so_when_a_replaced_encoder_is_still_at_work(bench: Bench) -> None:
    gate = bench.shelf["one"].hold("load")
    waiting = bench.engine.submit("one", lambda adapter: adapter.config.model)
    gate.reached()
    bench.engine.apply(config(encoder("one", model="org/better")))
    assert bench.engine.close(timeout=0.1) is False
    gate.open()
    assert waiting.exception(LIMIT) is not None
    assert bench.engine.close(LIMIT) is True


def test_new_timeouts_come_into_force_without_a_move(bench: Bench) -> None:
    bench.use("one")
    settings = config(encoder("one", idle_timeout_seconds=1.0), encoder("two"), idle_timeout_seconds=2.0)
    bench.engine.apply(settings)
    assert [view.idle_timeout_seconds for view in bench.engine.views()] == [1.0, 2.0]
    assert bench.shelf["one"].moves == ["load", "resume"]
    assert bench.engine.config is settings
    assert isinstance(bench.events[-1], SettingsApplied)


def test_a_pin_set_by_hand_outlives_settings_that_do_not_speak_of_it(bench: Bench) -> None:
    bench.engine.pin("one")
    bench.engine.apply(config(encoder("one"), encoder("two", pin=True)))
    assert [view.pinned for view in bench.engine.views()] == [True, True]
    bench.engine.apply(config(encoder("one"), encoder("two")))
    assert [view.pinned for view in bench.engine.views()] == [True, False]


def test_an_encoder_taken_out_of_the_settings_is_closed_and_unknown(bench: Bench) -> None:
    bench.use("two")
    gone, last = bench.shelf["two"], bench.engine._encoders.find("two").worker
    bench.engine.apply(config(encoder("one")))
    ended(last)
    assert gone.weights == set()
    with pytest.raises(UnknownEncoder, match="two"):
        bench.use("two")


# Names


def test_encoders_are_found_by_name_alias_and_default() -> None:
    bench = Bench(config(encoder("one"), encoder("two", aliases=("zwei",), default=True)))
    assert bench.engine.resolve("one", "dense") == "one"
    assert bench.engine.resolve("zwei", "dense") == "two"
    assert bench.engine.resolve(None, "dense") == "two"
    assert bench.engine.view("zwei").name == "two"
    bench.engine.apply(config(encoder("one"), encoder("two")))
    assert bench.engine.resolve(None, "dense") == "one"


def test_an_unknown_name_says_which_are_configured(bench: Bench) -> None:
    for ask in (bench.engine.view, bench.engine.load, bench.engine.dense, bench.engine.offload):
        with pytest.raises(UnknownEncoder, match=r"There is no encoder 'three'.*one, two"):
            ask("three")


def test_an_encoder_of_another_kind_is_refused(bench: Bench) -> None:
    with pytest.raises(UnknownEncoder, match="of kind dense, not rerank"):
        bench.engine.resolve("one", "rerank")
    with pytest.raises(UnknownEncoder, match="No rerank encoder"):
        bench.engine.resolve(None, "rerank")


# Use and control


def test_many_concurrent_cold_requests_cause_one_load(bench: Bench) -> None:
    start = threading.Barrier(32)

    def ask() -> list[str]:
        start.wait(LIMIT)
        return bench.use()

    asked = [started(ask) for _ in range(32)]
    assert [future.result(LIMIT) for future in asked] == [["device"]] * 32
    assert bench.engine.view("one").loads == 1
    assert not bench.shelf["one"].overlapped


def test_an_encoder_that_cannot_load_tells_the_caller_and_stays_visible(bench: Bench) -> None:
    bench.shelf["one"].fail("load", RuntimeError("no"))
    bench.shelf["two"].fail("probe", Unavailable("torch is missing."))
    with pytest.raises(LoadFailed):
        bench.use("one")
    with pytest.raises(Unavailable):
        bench.use("two")
    assert bench.states == {"one": State.FAILED, "two": State.UNAVAILABLE}
    assert bench.engine.retry("one").state is State.ON_DEVICE
    assert bench.engine.load("two").state is State.ON_DEVICE


def test_a_full_queue_is_refused(bench: Bench) -> None:
    gate = bench.shelf["one"].hold("load")
    bench.engine._encoders.find("one").worker._limit = 2
    futures = [bench.engine.submit("one", lambda adapter: None)]
    gate.reached()
    futures += [bench.engine.submit("one", lambda adapter: None) for _ in range(2)]
    assert bench.engine.view("one").queued == 2
    with pytest.raises(QueueFull):
        bench.use()
    gate.open()
    for future in futures:
        future.result(LIMIT)


def test_the_verbs_take_every_encoder_down_but_those_pinned_or_in_use(bench: Bench) -> None:
    assert [outcome.result for outcome in bench.engine.load_all()] == ["done", "done"]
    bench.engine.pin("two")
    assert [outcome.result for outcome in bench.engine.offload_all()] == ["done", "refused"]
    assert bench.states == {"one": State.IN_RAM, "two": State.ON_DEVICE}
    bench.engine.unpin("two")
    assert [outcome.result for outcome in bench.engine.unload_all()] == ["done", "done"]
    assert set(bench.states.values()) == {State.UNLOADED}
    changes = [event for event in bench.events if isinstance(event, StateChanged)]
    assert changes[-1].reason == "by hand"


def test_load_all_answers_refused_for_one_that_fails_and_says_why(bench: Bench) -> None:
    bench.shelf["one"].fail("load", RuntimeError("no"))
    outcomes = [(outcome.result, outcome.state, outcome.reason) for outcome in bench.engine.load_all()]
    assert outcomes == [
        ("refused", State.FAILED, "one could not be loaded: RuntimeError: no"),
        ("done", State.ON_DEVICE, None),
    ]


def test_looking_at_everything_often_never_wakes_nor_delays_a_step_down(bench: Bench) -> None:
    bench.use("one")
    for _ in range(20):
        bench.clock.now += 1.0
        bench.engine.views()
        bench.engine.view("one")
        bench.engine.read_memory(detailed=True)
        repr(bench.engine.dense("one"))
    assert bench.engine.view("one").next_deadline(bench.clock.now) == 1030.0
    assert bench.shelf["two"].calls == []
    assert bench.reader.reads == 20


def test_the_offloader_steps_an_idle_encoder_down_rung_by_rung(bench: Bench) -> None:
    bench.engine.start()
    bench.use("one")
    bench.clock.now += 30.0
    bench.engine._offloader.wake()
    bench.until("one", State.IN_RAM)
    bench.clock.now += 900.0
    bench.engine._offloader.wake()
    bench.until("one", State.UNLOADED)
    reasons = [event.reason for event in bench.events if isinstance(event, StateChanged) and event.reason]
    assert reasons == ["idle for 30 s"] * 2 + ["in RAM for 900 s without use"] * 2


def test_an_aged_decision_or_one_for_an_encoder_that_is_gone_does_nothing(bench: Bench) -> None:
    bench.use("one")
    bench.engine._encoders.apply_decision(Decision("one", Step.OFFLOAD, 1.0, "aged"))
    bench.engine._encoders.apply_decision(Decision("gone", Step.UNLOAD, None, "gone"))
    assert bench.states["one"] is State.ON_DEVICE


# keep_alive


def test_at_keep_alive_0_an_encoder_is_unloaded_after_its_request_is_answered(bench: Bench) -> None:
    request = bench.engine.submit("one", lambda adapter: adapter.encode(["abc"]).vectors, keep_alive=0.0)
    assert request.result(LIMIT) == [[3.0]]
    assert bench.states["one"] is State.ON_DEVICE
    assert bench.engine._offloader.tick() is None
    assert bench.states["one"] is State.UNLOADED
    assert bench.shelf["one"].moves == ["load", "resume", "unload"]
    last = [event for event in bench.events if isinstance(event, StateChanged)][-1]
    assert (last.new, last.reason) == (State.UNLOADED, "a request asked for it (keep_alive 0)")


def test_at_keep_alive_0_the_offloader_is_woken_and_needs_no_time_to_pass(bench: Bench) -> None:
    bench.engine.start()
    bench.use(keep_alive=0.0)
    bench.until("one", State.UNLOADED)
    assert bench.shelf["one"].moves == ["load", "resume", "unload"]


def test_the_offloader_is_woken_for_a_new_timer_and_not_for_every_use(bench: Bench) -> None:
    bench.use()
    woken: list[str] = []
    bench.engine._offloader.wake = lambda: woken.append("woken")  # type: ignore[method-assign]
    bench.use()
    assert woken == []
    bench.use(keep_alive=300.0)
    assert woken == ["woken"]


def test_a_use_without_a_keep_alive_keeps_the_unload_that_one_before_asked_for_until_it_happened(
    bench: Bench,
) -> None:
    bench.use(keep_alive=0.0)
    bench.use()
    bench.engine._offloader.tick()
    assert bench.states["one"] is State.UNLOADED
    bench.use()
    assert bench.engine._offloader.tick() == 30.0
    assert bench.states["one"] is State.ON_DEVICE


def test_at_keep_alive_0_nothing_is_unloaded_while_another_request_runs_or_waits(bench: Bench) -> None:
    bench.use(keep_alive=0.0)
    gate = Gate()
    running = bench.engine.submit("one", lambda adapter: gate.passed())
    gate.reached()
    waiting = bench.engine.submit("one", lambda adapter: list(adapter.weights))
    bench.engine._offloader.tick()
    assert bench.states["one"] is State.ON_DEVICE
    gate.open()
    assert (running.result(LIMIT), waiting.result(LIMIT)) == (None, ["device"])
    bench.engine._offloader.tick()
    assert bench.states["one"] is State.UNLOADED
    assert bench.engine.view("one").loads == 1


def test_a_request_that_fails_at_keep_alive_0_is_followed_by_an_unload_too(bench: Bench) -> None:
    with pytest.raises(ZeroDivisionError):
        bench.engine.call("one", lambda adapter: 1 / 0, keep_alive=0.0)
    bench.engine._offloader.tick()
    assert bench.states["one"] is State.UNLOADED


def test_a_keep_alive_moves_the_step_down_and_a_negative_one_takes_it_away(bench: Bench) -> None:
    bench.use(keep_alive=300.0)
    assert bench.engine._offloader.tick() == 300.0
    bench.clock.now += 299.0
    bench.engine._offloader.tick()
    assert bench.states["one"] is State.ON_DEVICE
    bench.use(keep_alive=-1.0)
    bench.clock.now += 1e6
    assert bench.engine._offloader.tick() is None
    assert bench.states["one"] is State.ON_DEVICE
    bench.use(keep_alive=5.0)
    bench.clock.now += 5.0
    bench.engine._offloader.tick()
    assert bench.states["one"] is State.IN_RAM


@pytest.mark.parametrize(
    ("asked", "longest", "kept"),
    [
        (600.0, 60.0, 60.0),
        (-1.0, 60.0, 60.0),
        (60.0, 60.0, 60.0),
        (5.0, 60.0, 5.0),
        (0.0, 60.0, 0.0),
        (None, 60.0, None),
        (600.0, 0.0, 600.0),
        (-1.0, 0.0, -1.0),
        (0.0, 0.0, 0.0),
    ],
)
def test_a_keep_alive_is_bounded_but_0_and_none_stay_what_they_are(
    asked: float | None, longest: float, kept: float | None
) -> None:
    bench = Bench(config(max_keep_alive_seconds=longest))
    bench.use("one", keep_alive=asked)
    bench.engine.submit("two", lambda adapter: None, keep_alive=asked).result(LIMIT)
    assert [view.keep_alive_seconds for view in bench.engine.views()] == [kept, kept]
    bench.engine.close()


@pytest.mark.parametrize(
    "asked",
    [
        "10m",
        "",
        float("nan"),
        float("inf"),
        float("-inf"),
        [5],
        {},
        b"5",
        5 + 0j,
        pytest.param(10**400, id="too long for a float"),
    ],
)
def test_a_keep_alive_that_is_no_number_of_seconds_is_refused_and_stops_no_timer(bench: Bench, asked: Any) -> None:
    bench.use(keep_alive=20.0)
    bench.clock.now += 5.0
    before, deadline = bench.engine.view("one"), bench.engine._offloader.tick()
    bench.events.clear()
    with pytest.raises(InvalidInput, match="no number of seconds") as refused:
        bench.use(keep_alive=asked)
    assert refused.value.param == "keep_alive"
    assert refused.value.next_step == "Give seconds, 0 to unload after the use, or a negative number to stay."
    assert (bench.engine.view("one"), bench.engine._offloader.tick(), bench.events) == (before, deadline, [])
    assert deadline == 15.0
    assert bench.engine._encoders.find("one").worker.queued == 0


def test_a_keep_alive_is_refused_before_anything_is_loaded_for_it(bench: Bench) -> None:
    with pytest.raises(InvalidInput):
        bench.use(keep_alive="10m")  # type: ignore[arg-type]
    assert bench.shelf["one"].calls == []


@pytest.mark.parametrize(("asked", "kept"), [(7, 7.0), (True, 1.0), (False, 0.0), (-0.0, 0.0)])
def test_whatever_python_counts_as_a_number_is_one(bench: Bench, asked: float, kept: float) -> None:
    bench.use(keep_alive=asked)
    assert bench.engine.view("one").keep_alive_seconds == kept


def test_a_new_bound_is_in_force_at_once(bench: Bench) -> None:
    bench.use(keep_alive=-1.0)
    bench.engine.apply(config(max_keep_alive_seconds=60.0))
    assert bench.engine.view("one").keep_alive_seconds == 60.0
    bench.use(keep_alive=-1.0)
    assert bench.engine.view("one").keep_alive_seconds == 60.0


# Measured views


def test_measured_views_ask_the_adapters_of_those_that_hold_weights_and_others_none(bench: Bench) -> None:
    bench.use("one")
    for name in ("one", "two"):
        bench.shelf[name].calls.clear()
    bench.engine.views()
    bench.engine.view("one")
    assert (bench.shelf["one"].calls, bench.shelf["two"].calls) == ([], [])
    bench.shelf["one"].footprint = lambda: Footprint(7, 8, 9)  # type: ignore[method-assign]
    seen = [(view.bytes_on_device, view.bytes_in_ram) for view in bench.engine.views(measured=True)]
    assert seen == [(7, 8), (0, 0)]
    assert bench.engine.view("one", measured=True).bytes_on_device == 7
    assert bench.engine.view("one").bytes_on_device == SIZE
    assert bench.shelf["two"].calls == []


def test_the_offloader_looks_without_measuring(bench: Bench) -> None:
    bench.use("one")
    bench.shelf["one"].calls.clear()
    assert bench.engine._offloader.tick() == 30.0
    assert bench.shelf["one"].calls == []


# Closing


def test_closing_drops_all_weights_and_refuses_new_work(bench: Bench) -> None:
    bench.engine.load_all()
    assert bench.engine.close() is True
    assert [bench.shelf[name].weights for name in ("one", "two")] == [set(), set()]
    assert bench.reader.closes == 1
    with pytest.raises(Closed):
        bench.use()


def test_closing_during_a_load_returns_at_its_limit_and_says_so(bench: Bench) -> None:
    gate = bench.shelf["one"].hold("load")
    loading = started(lambda: bench.engine.load("one"))
    gate.reached()
    waiting = bench.engine.submit("one", lambda adapter: None)
    assert bench.engine.close(timeout=0.0) is False
    with pytest.raises(Closed):
        waiting.result(LIMIT)
    gate.open()
    assert isinstance(failure(loading), Closed)
    assert bench.shelf["one"].weights == set()


def test_each_encoder_gets_its_own_adapter() -> None:
    built: list[str] = []

    def build(settings: object, device: str, context: object) -> FakeAdapter:
        built.append(device)
        return FakeAdapter()

    Engine(config(encoder("one"), encoder("two", device="cpu"), device="cuda:1"), adapter=build, reader=FakeReader())
    assert built == ["cuda:1", "cpu"]

"""Every configured encoder behind one door: threads, settings, names and the control verbs."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from engine_fakes import LIMIT, FakeAdapter, FakeClock, FakeReader, Gate, Shelf, config, encoder, failure, started

from engine import Closed, Config, Engine, LoadFailed, QueueFull, State, Unavailable, UnknownEncoder
from engine.events import Event, SettingsApplied, StateChanged
from engine.policy import Decision, Step
from engine.worker import Worker


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

    def use(self, name: str = "one") -> list[str]:
        return self.engine.call(name, lambda adapter: list(adapter.weights))

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
    assert bench.shelf["one"].moves == ["load"]


def test_switched_to_true_nothing_changes() -> None:
    bench = Bench(config(lazy_encoders=False))
    bench.engine.start()
    for name in ("one", "two"):
        bench.until(name, State.ON_DEVICE)
    bench.engine.apply(config(lazy_encoders=True))
    assert set(bench.states.values()) == {State.ON_DEVICE}
    assert bench.shelf["one"].moves == ["load"]
    bench.engine.close()


def test_another_setting_wakes_no_encoder_that_sleeps_while_lazy_is_false() -> None:
    bench = Bench(config(lazy_encoders=False))
    bench.engine.start()
    for name in ("one", "two"):
        bench.until(name, State.ON_DEVICE)
    bench.engine.unload("one")
    bench.engine.apply(config(lazy_encoders=False, idle_timeout_seconds=5.0))
    bench.engine.apply(config(encoder("one"), lazy_encoders=False))
    assert bench.engine._encoders["one"].worker.submit(lambda: None).result(LIMIT) is None
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


# New settings


@pytest.mark.parametrize("change", [{"model": "org/better"}, {"device": "cuda:1"}])
def test_a_changed_model_or_device_replaces_the_encoder_and_the_others_keep_their_weights(
    bench: Bench, change: dict[str, str]
) -> None:
    bench.use("one")
    bench.use("two")
    old, kept = bench.shelf["one"], bench.shelf["two"]
    last = bench.engine._encoders["one"].worker
    bench.engine.apply(config(encoder("one", **change), encoder("two")))
    assert bench.states == {"one": State.UNLOADED, "two": State.ON_DEVICE}
    bench.use("one")
    assert bench.shelf["one"] is not old
    assert bench.shelf["two"] is kept
    assert kept.moves == ["load"]
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
    last = bench.engine._encoders["one"].worker
    bench.engine.apply(config(encoder("one", model="org/better")))
    gate.open()
    assert [future.result(LIMIT) for future in waiting] == ["org/one"] * 3
    assert bench.engine.call("one", lambda adapter: adapter.config.model) == "org/better"
    ended(last)
    assert old.weights == set()


def test_a_request_that_meets_a_replacement_half_way_goes_to_the_new_encoder(bench: Bench) -> None:
    stale, find = [bench.engine._encoders["one"]], bench.engine._find
    bench.engine.apply(config(encoder("one", model="org/better")))
    bench.engine._find = lambda name: stale.pop() if stale else find(name)  # type: ignore[method-assign]
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
    assert bench.shelf["one"].moves == ["load"]
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
    gone, last = bench.shelf["two"], bench.engine._encoders["two"].worker
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
    bench.engine._encoders["one"].worker._limit = 2
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


def test_load_all_answers_refused_for_one_that_fails(bench: Bench) -> None:
    bench.shelf["one"].fail("load", RuntimeError("no"))
    assert [outcome.result for outcome in bench.engine.load_all()] == ["refused", "done"]


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
    bench.engine.apply_decision(Decision("one", Step.OFFLOAD, 1.0, "aged"))
    bench.engine.apply_decision(Decision("gone", Step.UNLOAD, None, "gone"))
    assert bench.states["one"] is State.ON_DEVICE


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

    def build(settings: object, device: str) -> FakeAdapter:
        built.append(device)
        return FakeAdapter()

    Engine(config(encoder("one"), encoder("two", device="cpu"), device="cuda:1"), adapter=build, reader=FakeReader())
    assert built == ["cuda:1", "cpu"]

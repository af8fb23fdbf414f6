"""Every configured encoder behind one door: threads, names, control and closing."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from engine_bench import Bench, new_threads
from engine_fakes import LIMIT, SIZE, FakeAdapter, FakeReader, config, encoder, failure, started

from engine import Closed, Engine, LoadFailed, QueueFull, State, Unavailable, UnknownEncoder
from engine.devices.placement import Footprint
from engine.events import StateChanged
from engine.residency.policy import Decision, Step

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


def test_a_closed_engine_takes_no_new_settings_and_does_not_start_again(
    before: set[threading.Thread], bench: Bench
) -> None:
    bench.engine.close()
    bench.engine.stop_accepting(timeout=0.0)
    with pytest.raises(Closed):
        bench.engine.apply(config(encoder("three")))
    with pytest.raises(Closed):
        bench.engine.start()
    assert not bench.engine.ready
    assert new_threads(before) == set()


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

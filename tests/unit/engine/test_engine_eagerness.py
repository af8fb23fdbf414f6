"""Encoders that load at the start or when the settings change, and those that wait for a use."""

from __future__ import annotations

import threading

import pytest
from engine_bench import Bench, new_threads
from engine_fakes import LIMIT, Gate, config, encoder

from engine import State, Unavailable

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

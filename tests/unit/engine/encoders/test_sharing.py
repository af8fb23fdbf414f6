"""Encoders that are the same model in the same way: one set of weights, each with a name and a status of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from engine_fakes import LIMIT, FakeAdapter, FakeClock, FakeReader, Shelf, config, encoder

from engine.adapters.context import AdapterContext
from engine.encoders.sharing import longest_timeouts
from engine.engine import Engine
from engine.events import Downloading, SettingsApplied, StateChanged
from engine.settings.config import Config, EncoderConfig
from engine.settings.effective import Timeouts
from engine.state import Download, State


def twin(name: str, **settings: Any) -> EncoderConfig:
    return encoder(name, model="org/shared", **settings)


class Bench:
    def __init__(self, settings: Config) -> None:
        self.shelf = Shelf()
        self.clock = FakeClock()
        self.engine = Engine(settings, adapter=self.shelf, reader=FakeReader(), clock=self.clock)

    def use(self, name: str, used_by: str | None = None, keep_alive: float | None = None) -> None:
        self.engine.call(name, lambda adapter: None, used_by, keep_alive)

    @property
    def states(self) -> dict[str, State]:
        return {view.name: view.state for view in self.engine.views()}

    @property
    def loads(self) -> int:
        return sum(adapter.calls.count("load") for built in self.shelf.built.values() for adapter in built)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench(config(twin("one"), twin("two"), encoder("other")))
    yield bench
    bench.engine.close()


def test_two_encoders_on_one_model_are_loaded_once_and_counted_once(bench: Bench) -> None:
    bench.use("one")
    bench.use("two")
    assert bench.loads == 1
    assert list(bench.shelf.built) == ["one", "other"]
    assert bench.states == {"one": State.ON_DEVICE, "two": State.ON_DEVICE, "other": State.UNLOADED}
    assert [view.name for view in bench.engine._encoders.slots()] == ["one", "other"]


def test_each_says_with_whom_it_shares(bench: Bench) -> None:
    shared = {view.name: view.shared_with for view in bench.engine.views()}
    assert shared == {"one": ("two",), "two": ("one",), "other": ()}


def test_each_keeps_who_used_it_and_whether_it_runs(bench: Bench) -> None:
    bench.use("one", "notes")
    bench.use("two", "photos")
    assert [bench.engine.view(name).last_used_by for name in ("one", "two")] == ["notes", "photos"]

    seen: list[tuple[str, str]] = []

    def look(adapter: object) -> None:
        seen.extend((view.name, view.status) for view in bench.engine.views())

    bench.engine.call("two", look)
    assert dict(seen)["one"] == "idle"
    assert dict(seen)["two"] == "running"


@pytest.mark.parametrize(
    "differs", [{"model": "org/else"}, {"device": "cuda:1"}, {"dtype": "float16"}, {"kind": "sparse"}]
)
def test_what_differs_in_more_than_its_name_has_weights_of_its_own(differs: dict[str, str]) -> None:
    bench = Bench(config(twin("one"), replace(twin("two"), **differs)))
    assert list(bench.shelf.built) == ["one", "two"]
    assert bench.engine.view("one").shared_with == ()


def test_code_of_a_model_runs_for_no_encoder_that_did_not_ask_for_it() -> None:
    bench = Bench(config(twin("one", trust_remote_code=True), twin("two")))
    assert list(bench.shelf.built) == ["one", "two"]


def test_one_folder_in_two_spellings_is_one_model() -> None:
    bench = Bench(config(encoder("one", model="/models/a"), encoder("two", model="/models/b/../a/")))
    assert list(bench.shelf.built) == ["one"]


def test_any_pin_pins_the_weights_and_only_the_last_unpin_frees_them(bench: Bench) -> None:
    bench.use("one")
    bench.engine.pin("one")
    bench.engine.pin("two")
    first = bench.engine.unpin("one")
    assert (first.result, first.name) == ("done", "one")
    assert (first.reason, first.pinned_by) == ("two shares its weights and is pinned.", ("two",))
    assert bench.engine.offload("one").result == "refused"
    last = bench.engine.unpin("two")
    assert (last.reason, last.pinned_by) == (None, ())
    assert bench.engine.offload("one").result == "done"


def test_the_longest_timeout_wins_and_0_is_the_longest_of_all() -> None:
    short, long = Timeouts(10.0, 100.0), Timeouts(60.0, 0.0)
    assert longest_timeouts([short, long]) == Timeouts(60.0, 0.0)
    assert longest_timeouts([Timeouts(0.0, 5.0), short]) == Timeouts(0.0, 100.0)


def test_the_timeouts_of_the_settings_are_those_of_whoever_asks_for_more() -> None:
    bench = Bench(config(twin("one", idle_timeout_seconds=5.0), twin("two", idle_timeout_seconds=90.0)))
    assert [view.idle_timeout_seconds for view in bench.engine.views()] == [90.0, 90.0]
    bench.engine.apply(config(twin("one", idle_timeout_seconds=5.0), twin("two", idle_timeout_seconds=7.0)))
    assert [view.idle_timeout_seconds for view in bench.engine.views()] == [7.0, 7.0]


def test_a_step_down_of_one_is_one_of_both_and_says_whose_it_was_asked_of(bench: Bench) -> None:
    bench.use("one")
    outcome = bench.engine.offload("two")
    assert (outcome.name, outcome.result) == ("two", "done")
    assert bench.states["one"] is bench.states["two"] is State.IN_RAM
    assert {outcome.name for outcome in bench.engine.unload_all()} == {"one", "two", "other"}


def test_taking_away_the_second_leaves_the_first_as_it_is(bench: Bench) -> None:
    bench.use("two")
    bench.engine.apply(config(twin("one"), encoder("other")))
    assert bench.states == {"one": State.ON_DEVICE, "other": State.UNLOADED}
    assert bench.loads == 1


def test_the_second_leads_when_the_first_is_taken_away_and_nothing_moves(bench: Bench) -> None:
    bench.use("one")
    bench.engine.pin("two")
    bench.engine.apply(config(twin("two"), encoder("other")))
    assert bench.states["two"] is State.ON_DEVICE
    assert bench.engine.view("two").pinned
    bench.use("two")
    assert bench.loads == 1
    assert [view.name for view in bench.engine._encoders.slots()] == ["two", "other"]
    bench.engine.unpin("two")
    assert bench.engine.offload("two").result == "done"


def test_the_order_in_the_settings_may_change_under_weights_that_are_up(bench: Bench) -> None:
    bench.use("one")
    bench.engine.pin("two")
    bench.engine.apply(config(twin("zero"), twin("two"), twin("one"), encoder("other")))
    assert bench.states["zero"] is State.ON_DEVICE
    assert bench.engine.view("one").pinned
    assert bench.engine.view("two").shared_with == ("zero", "one")
    assert bench.loads == 1


def test_a_name_that_leaves_the_others_takes_nothing_with_it(bench: Bench) -> None:
    bench.use("one")
    bench.engine.apply(config(encoder("one"), twin("two"), encoder("other")))
    assert bench.states == {"one": State.UNLOADED, "two": State.ON_DEVICE, "other": State.UNLOADED}
    bench.use("one")
    assert bench.loads == 2
    assert [view.name for view in bench.engine._encoders.slots()] == ["one", "two", "other"]


@pytest.mark.parametrize("later", [[twin("two")], [twin("two"), twin("one")]], ids=["gone", "second"])
def test_a_leader_that_is_one_no_more_is_forgotten_by_the_placer(later: list[EncoderConfig]) -> None:
    bench = Bench(config(twin("one"), twin("two")))
    engine = bench.engine
    engine._placer.use_less("one")
    engine.apply(config(*later))
    assert list(engine._placer._placements) == []


def test_weights_that_wait_otherwise_than_the_new_leader_says_are_made_anew() -> None:
    bench = Bench(config(twin("one"), twin("two", home="disk")))
    bench.use("two")
    bench.engine.apply(config(twin("two", home="disk")))
    assert bench.states["two"] is State.UNLOADED
    assert list(bench.shelf.built) == ["one", "two"]


def test_a_second_one_that_is_added_to_a_running_engine_is_told_and_brought_up_as_it_asks(bench: Bench) -> None:
    told: list[object] = []
    bench.engine.events.subscribe(told.append)
    bench.engine.start()
    bench.engine.apply(config(twin("one"), twin("two"), twin("three", lazy_encoders=False), encoder("other")))
    assert SettingsApplied() in told
    bench.use("three")
    assert bench.loads == 1


def test_what_happens_to_the_weights_is_told_of_each_of_them(bench: Bench) -> None:
    told: list[tuple[str, State]] = []
    bench.engine.events.subscribe(lambda e: told.append((e.name, e.new)) if isinstance(e, StateChanged) else None)
    bench.use("two")
    assert sorted(name for name, new in told if new is State.ON_DEVICE) == ["one", "two"]


def test_the_end_of_weights_that_were_replaced_is_told_of_each_that_had_them(bench: Bench) -> None:
    told: list[tuple[str, State]] = []
    bench.use("two")
    worker = bench.engine._encoders.find("two").worker
    bench.engine.events.subscribe(lambda e: told.append((e.name, e.new)) if isinstance(e, StateChanged) else None)
    bench.engine.apply(config(encoder("one"), twin("two", dtype="float16"), encoder("other")))
    worker.wait(LIMIT)
    assert sorted(name for name, new in told if new is State.UNLOADED) == ["one", "two"]


def test_a_download_is_told_of_each_who_waits_for_it() -> None:
    given: list[AdapterContext] = []

    def build(settings: EncoderConfig, device: str, context: AdapterContext) -> FakeAdapter:
        given.append(context)
        return FakeAdapter(settings, device)

    engine = Engine(config(twin("one"), twin("two")), adapter=build, reader=FakeReader())
    told: list[object] = []
    engine.events.subscribe(told.append)
    given[0].report_download(Download(1, 2))
    assert told == [Downloading("one", Download(1, 2)), Downloading("two", Download(1, 2))]


def test_the_longest_keep_alive_of_those_who_share_counts(bench: Bench) -> None:
    def asked() -> float | None:
        return bench.engine.view("one").keep_alive_seconds

    bench.use("one", keep_alive=600.0)
    bench.use("two", keep_alive=1.0)
    assert asked() == 600.0
    bench.use("one", keep_alive=2.0)
    assert asked() == 2.0
    bench.use("two", keep_alive=-1)
    bench.use("one", keep_alive=0)
    assert asked() == -1.0
    assert bench.states["one"] is State.ON_DEVICE


def test_a_request_cuts_no_timeout_short_that_another_was_promised() -> None:
    bench = Bench(config(twin("one"), twin("two", idle_timeout_seconds=1000.0), idle_timeout_seconds=30))
    bench.use("one", keep_alive=0)
    assert bench.states["two"] is State.ON_DEVICE
    assert bench.engine.view("two").keep_alive_seconds == 1000.0


def test_a_promise_ends_with_the_step_down(bench: Bench) -> None:
    bench.use("two", keep_alive=600.0)
    bench.engine.offload("one")
    bench.use("one", keep_alive=90.0)
    assert bench.engine.view("one").keep_alive_seconds == 90.0


def test_nobody_steps_down_while_another_is_in_use() -> None:
    bench = Bench(config(twin("one"), twin("two"), idle_timeout_seconds=30))
    bench.use("one")
    bench.clock.now += 100.0
    seen: list[float | None] = []
    bench.engine.call("two", lambda adapter: seen.append(bench.engine.view("one").next_deadline(bench.clock.now)))
    assert seen == [bench.clock.now + 30.0]


def test_who_holds_shared_weights_is_named_to_who_does_not(bench: Bench) -> None:
    bench.use("one")
    bench.engine.pin("two")
    refused = bench.engine.unload("one")
    assert (refused.reason, refused.pinned_by) == ("two shares its weights and is pinned.", ("two",))
    refused = bench.engine.unload("two")
    assert (refused.reason, refused.pinned_by) == ("two is pinned.", ("two",))


def test_each_has_its_own_floor_for_scores() -> None:
    photo = EncoderConfig("photo", "image_text", "org/clip")
    bench = Bench(config(photo, replace(photo, name="strict", score_floor=0.5)))
    bench.use("photo.text")
    assert bench.loads == 1
    assert bench.engine.view("photo.text").metadata.get("score_floor") is None
    assert bench.engine.view("strict.text").metadata["score_floor"] == 0.5


def test_a_second_one_that_is_added_joins_the_weights_that_are_up(bench: Bench) -> None:
    bench.use("one")
    bench.engine.apply(config(twin("one"), twin("two"), twin("three", pin=True), encoder("other")))
    assert bench.states["three"] is State.ON_DEVICE
    assert bench.engine.view("one").pinned
    assert bench.loads == 1


def test_a_pin_by_hand_outlives_settings_that_do_not_speak_of_it(bench: Bench) -> None:
    bench.engine.pin("two")
    bench.engine.apply(config(twin("one"), twin("two", idle_timeout_seconds=3.0), encoder("other")))
    assert bench.engine.view("one").pinned
    bench.engine.apply(config(twin("one"), encoder("other")))
    assert not bench.engine.view("one").pinned


def test_both_names_may_be_used_at_once_without_a_second_load(bench: Bench) -> None:
    gate = bench.shelf["one"].hold("load")
    futures = [bench.engine.submit(name, lambda adapter: None) for name in ("one", "two") * 4]
    gate.reached()
    gate.open()
    for future in futures:
        future.result(LIMIT)
    assert bench.loads == 1

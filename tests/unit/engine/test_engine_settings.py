"""New settings put in force while encoders are loaded or in use."""

from __future__ import annotations

import pytest
from engine_bench import Bench
from engine_fakes import LIMIT, config, encoder

from engine import State, UnknownEncoder
from engine.events import SettingsApplied
from engine.serving.worker import Worker


def ended(worker: Worker) -> None:
    """Return once a worker that was told to finish has."""
    assert worker._thread is not None
    worker._thread.join(LIMIT)
    assert not worker._thread.is_alive()


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

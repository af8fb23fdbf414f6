"""Axes over a base that is a fake: what they ask of it, what they keep, and how its failures come through."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from engine_fakes import LIMIT, FakeAdapter, FakeReader, failure, started, until
from numpy.typing import NDArray

from engine import Closed, Engine, LoadFailed, State, Unavailable, UnknownEncoder, parse
from engine.adapters.context import AdapterContext
from engine.adapters.kinds.axes import AxesAdapter
from engine.adapters.kinds.universal_axes import UNIVERSAL_AXES
from engine.adapters.protocol import Adapter, Loaded
from engine.errors import DeviceLost
from engine.operations.axes import BaseVectors
from engine.operations.dense import Encoding
from engine.settings.config import EncoderConfig

AXES = [{"name": "fire", "anchor": "aa"}, {"name": "water", "anchor": "ab"}]


def vector(text: str, turn: float) -> NDArray[np.float32]:
    """How often a and b stand in a text, turned with the weights' revision and not of length 1."""
    counts = np.asarray([text.count("a"), text.count("b")], dtype=np.float64)
    turned = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]] @ counts
    return np.asarray(3 * turned, dtype=np.float32)


class FakeBase(FakeAdapter):
    """A dense encoder whose weights have a revision; each of its encodes is recorded."""

    def __init__(self, config: EncoderConfig | None = None, device: str = "gpu") -> None:
        super().__init__(config, "gpu")
        self.version = 1
        self.asked: list[tuple[list[str], str | None]] = []

    @property
    def revision(self) -> str | None:
        return str(self.version)

    def load(self, on: str | None = None) -> Loaded:
        super().load(on)
        return Loaded("gpu", self.revision, 0.0, 0.0)

    def encode(
        self, inputs: Sequence[str], *, task: str | None = None, dimensions: int | None = None, truncate: bool = True
    ) -> Any:
        self._run("encode")
        self.asked.append((list(inputs), task))
        return Encoding(np.stack([vector(text, self.version) for text in inputs]), len(inputs))


class Bench:
    """An engine with one base and axes on it; either may be built anew by new settings."""

    def __init__(self, order: Sequence[str] = ("base", "sema")) -> None:
        self.built: dict[str, list[Any]] = {}
        self.order = order
        self.engine = Engine(self.settings(), adapter=self._build, reader=FakeReader())

    def settings(self, model: str = "org/one", **axes: Any) -> Any:
        tables = {
            "base": {"kind": "dense", "model": model, "aliases": ["ground"]},
            "sema": {"kind": "axes", "base": "base", "axes": AXES, **axes},
        }
        return parse({"encoders": {name: tables[name] for name in self.order}})

    def _build(self, config: EncoderConfig, device: str, context: AdapterContext) -> Adapter:
        made = AxesAdapter if config.kind == "axes" else lambda config, device, _: FakeBase(config, device)
        adapter: Any = made(config, device, context)
        self.built.setdefault(config.name, []).append(adapter)
        return adapter  # type: ignore[no-any-return]

    @property
    def base(self) -> FakeBase:
        found: FakeBase = self.built["base"][-1]
        return found

    def state(self, name: str = "sema") -> State:
        return self.engine.view(name).state


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.engine.close()


def cosines(text: str) -> list[float]:
    """What the axes should say, whatever the revision: turning keeps angles."""
    rows = [vector(one, 0.0) for one in (text, "aa", "ab")]
    unit = [row / (np.linalg.norm(row) or 1) for row in rows]
    return [float(unit[0] @ unit[1]), float(unit[0] @ unit[2])]


def test_a_text_lies_where_its_cosines_with_the_anchors_are(bench: Bench) -> None:
    vectors = bench.engine.axes().encode(["aab", "b"])
    np.testing.assert_allclose(vectors, [cosines("aab"), cosines("b")], atol=1e-6)
    assert vectors.dtype == np.float32


def test_looking_at_axes_loads_neither_them_nor_their_base(bench: Bench) -> None:
    proxy = bench.engine.axes("sema")
    assert repr(proxy) == "<AxesProxy sema: idle (not loaded)>"
    assert proxy.similarity([1.0, 0.0], [[0.0, 1.0]]).tolist() == [[0.0]]
    assert proxy.nearest([1.0, 0.0], [[0.0, 1.0], [2.0, 0.0]], k=1) == [(1, 1.0)]
    assert proxy.encode([]).shape == (0, 0)
    assert bench.base.calls == []


def test_the_anchors_are_read_once_and_in_one_go(bench: Bench) -> None:
    proxy = bench.engine.axes()
    proxy.encode(["a"])
    proxy.encode(["b"], task="query")
    assert bench.base.asked == [(["aa", "ab"], None), (["a"], None), (["b"], "query")]


def test_axes_are_shown_with_their_own_bytes_and_what_they_stand_on(bench: Bench) -> None:
    bench.engine.load("sema")
    view = bench.engine.view("sema")
    assert (view.state, view.bytes_total, view.bytes_in_ram) == (State.ON_DEVICE, 2 * 2 * 4, 2 * 2 * 4)
    assert view.metadata == {"dimension": 2, "axes": ["fire", "water"], "base": "base"}
    assert view.revision is not None
    assert view.revision.startswith("1+axes.")
    assert bench.engine.axes().names == ("fire", "water")


def test_other_axes_on_the_same_base_are_another_revision() -> None:
    found = set()
    for axes in (AXES, AXES[::-1], [{**AXES[0], "anchor": "other"}, AXES[1]], [{**AXES[0], "name": "other"}, AXES[1]]):
        bench = Bench()
        bench.engine.apply(bench.settings(axes=axes))
        bench.engine.load("sema")
        found.add(bench.engine.view("sema").revision)
        bench.engine.close()
    assert len(found) == 4


def test_a_signature_names_the_axis_that_a_text_is_about(bench: Bench) -> None:
    [strongest] = bench.engine.axes().signature("aaaa", top_k=1)
    assert strongest[0] == "fire"
    assert strongest[1] == pytest.approx(1.0)


def test_where_the_settings_name_no_axes_twenty_ship() -> None:
    names = [axis.name for axis in UNIVERSAL_AXES]
    assert len(set(names)) == len({axis.anchor for axis in UNIVERSAL_AXES}) == 20
    assert all(name.isalpha() and name.islower() for name in names)
    bench = Bench()
    settings = parse(
        {"encoders": {"base": {"kind": "dense", "model": "./b"}, "sema": {"kind": "axes", "base": "base"}}}
    )
    bench.engine.apply(settings)
    assert bench.engine.axes().encode(["ab"]).shape == (1, 20)
    bench.engine.close()


def test_an_empty_text_has_no_place_and_divides_nothing_by_zero(bench: Bench) -> None:
    assert bench.engine.axes().encode([""]).tolist() == [[0.0, 0.0]]


def test_resting_and_coming_back_gives_equal_bits_and_asks_the_base_for_no_anchor(bench: Bench) -> None:
    proxy = bench.engine.axes()
    before = proxy.encode(["ab"])
    assert bench.engine.offload("sema").result == "done"
    assert bench.state() is State.IN_RAM
    assert np.array_equal(proxy.encode(["ab"]), before)
    assert bench.base.asked.count((["aa", "ab"], None)) == 1


def test_after_an_unload_the_anchors_are_read_again(bench: Bench) -> None:
    proxy = bench.engine.axes()
    before = proxy.encode(["ab"])
    bench.engine.unload("sema")
    view = bench.engine.view("sema")
    assert (view.state, view.bytes_in_ram) == (State.UNLOADED, 0)
    assert np.array_equal(proxy.encode(["ab"]), before)
    assert bench.base.asked.count((["aa", "ab"], None)) == 2


def test_a_base_that_comes_up_with_the_same_weights_leaves_the_anchors_alone(bench: Bench) -> None:
    bench.engine.axes().encode(["ab"])
    bench.engine.unload("base")
    bench.engine.axes().encode(["ab"])
    assert (bench.engine.view("sema").loads, bench.engine.view("base").loads) == (1, 2)


def test_a_base_that_came_up_with_other_weights_has_the_anchors_read_again(bench: Bench) -> None:
    proxy = bench.engine.axes()
    proxy.encode(["ab"])
    old = bench.engine.view("sema").revision
    bench.engine.unload("base")
    bench.base.version = 2
    bench.engine.dense("base").encode(["loads it"])
    np.testing.assert_allclose(proxy.encode(["aab"]), [cosines("aab")], atol=1e-6)
    view = bench.engine.view("sema")
    assert (view.loads, view.revision) == (2, f"2{old[1:]}" if old else None)


def test_other_weights_that_come_up_for_the_very_request_are_noticed_too(bench: Bench) -> None:
    proxy = bench.engine.axes()
    proxy.encode(["ab"])
    bench.engine.unload("base")
    bench.base.version = 2
    np.testing.assert_allclose(proxy.encode(["aab"]), [cosines("aab")], atol=1e-6)
    revision = bench.engine.call("sema", lambda adapter: adapter.revision)
    assert revision.startswith("2+axes.")
    assert bench.engine.view("sema").revision == revision


def test_new_settings_that_name_another_model_for_the_base_have_the_anchors_read_again(bench: Bench) -> None:
    bench.engine.axes().encode(["ab"])
    bench.engine.apply(bench.settings("org/two"))
    assert bench.engine.axes().encode(["ab"]).shape == (1, 2)
    assert bench.base.asked == [(["aa", "ab"], None), (["ab"], None)]
    assert bench.engine.view("sema").loads == 2


def test_a_base_may_be_named_by_an_alias(bench: Bench) -> None:
    bench.engine.apply(bench.settings(base="ground"))
    assert bench.engine.axes().encode(["ab"]).shape == (1, 2)


def test_vectors_that_somebody_has_already_are_not_asked_for(bench: Bench) -> None:
    known = BaseVectors(np.stack([vector("aab", 1)]), "1", 0)
    found = bench.engine.call("sema", lambda adapter: adapter.encode_axes(["aab"], known=known))
    np.testing.assert_allclose(found.vectors, [cosines("aab")], atol=1e-6)
    assert bench.base.asked == [(["aa", "ab"], None)]


@pytest.mark.parametrize(("dimension", "revision"), [(2, "9"), (3, "1")])
def test_vectors_of_other_weights_do_not_count(bench: Bench, dimension: int, revision: str) -> None:
    known = BaseVectors(np.ones((1, dimension), dtype=np.float32), revision, 0)
    found = bench.engine.call("sema", lambda adapter: adapter.encode_axes(["aab"], known=known))
    np.testing.assert_allclose(found.vectors, [cosines("aab")], atol=1e-6)
    assert bench.base.asked[-1] == (["aab"], None)


@pytest.mark.parametrize(
    ("error", "kind", "state"),
    [
        (LoadFailed("The disk is on fire.", next_step="Put it out."), LoadFailed, State.FAILED),
        (Unavailable("The folder is missing.", next_step="Put it out."), Unavailable, State.UNAVAILABLE),
    ],
)
def test_a_base_that_fails_to_load_is_named_with_what_it_said(
    bench: Bench, error: Exception, kind: type[LoadFailed | Unavailable], state: State
) -> None:
    bench.base.fail("load", error)
    with pytest.raises(kind, match=r"sema stands on base: .*(disk|folder)") as failed:
        bench.engine.axes().encode(["ab"])
    assert failed.value.next_step == "Put it out."
    assert bench.state() is state


def test_a_base_that_loses_its_device_is_no_reason_to_load_the_axes_anew(bench: Bench) -> None:
    bench.engine.axes().encode(["ab"])
    bench.base.fail("encode", *(DeviceLost("The driver reset.") for _ in range(2)))
    with pytest.raises(LoadFailed, match="sema stands on base: The driver reset"):
        bench.engine.axes().encode(["ab"])
    assert bench.engine.view("sema").loads == 1


def test_a_base_that_fails_later_is_named_too_and_leaves_the_axes_as_they_are(bench: Bench) -> None:
    bench.engine.axes().encode(["ab"])
    bench.engine.unload("base")
    bench.base.fail("load", LoadFailed("The disk is on fire."))
    with pytest.raises(LoadFailed, match="sema stands on base: The disk is on fire") as failed:
        bench.engine.axes().encode(["ab"])
    assert failed.value.retry_in_seconds is not None
    assert bench.state() is State.ON_DEVICE


def test_without_a_base_the_axes_are_unavailable() -> None:
    def gone(name: str) -> Any:
        raise UnknownEncoder(f"There is no encoder {name!r}.")

    settings = EncoderConfig("sema", "axes", "axes:lost", base="lost")
    adapter = AxesAdapter(settings, "cpu", AdapterContext(view=gone))
    with pytest.raises(Unavailable, match="sema stands on lost, and there is no such encoder") as missing:
        adapter.probe()
    assert "mend `base` of sema" in (missing.value.next_step or "")


def test_a_base_that_went_is_a_reason_to_read_the_anchors_again(bench: Bench) -> None:
    bench.engine.load("sema")
    adapter: AxesAdapter = bench.built["sema"][-1]
    assert adapter.stale() is None

    def gone(name: str) -> Any:
        raise UnknownEncoder(f"There is no encoder {name!r}.")

    adapter._context = AdapterContext(view=gone)
    assert adapter.stale() == "base is gone"


def test_eight_first_users_of_axes_load_them_and_their_base_once(bench: Bench) -> None:
    barrier = threading.Barrier(8)

    def use() -> NDArray[np.float32]:
        barrier.wait(LIMIT)
        return bench.engine.axes().encode(["aab"])

    uses = [started(use) for _ in range(8)]
    for one in uses:
        np.testing.assert_allclose(one.result(LIMIT), [cosines("aab")], atol=1e-6)
    assert (bench.engine.view("sema").loads, bench.engine.view("base").loads) == (1, 1)
    assert not bench.base.overlapped


def test_axes_and_base_in_use_from_all_sides_hang_nobody(bench: Bench) -> None:
    over = threading.Event()

    def repeat(call: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            while not over.is_set():
                call()

        return run

    engine = bench.engine
    verbs = [engine.offload_all, engine.unload_all, lambda: (engine.pin("base"), engine.unpin("base"))]
    others = [started(repeat(verb)) for verb in verbs]
    uses = [started(lambda: [engine.axes().encode(["aab"]) for _ in range(20)]) for _ in range(8)]
    uses += [started(lambda: [engine.dense("base").encode(["ab"]) for _ in range(20)]) for _ in range(2)]
    try:
        for one in uses:
            one.result(6 * LIMIT)
    finally:
        over.set()
    for other in others:
        other.result(LIMIT)
    assert not bench.base.overlapped


def test_a_pinned_base_serves_axes_and_stays(bench: Bench) -> None:
    bench.engine.pin("base")
    bench.engine.axes().encode(["ab"])
    bench.engine.unload_all()
    assert (bench.state("base"), bench.state("sema")) == (State.ON_DEVICE, State.UNLOADED)


@pytest.mark.parametrize("order", [("base", "sema"), ("sema", "base")])
@pytest.mark.parametrize("loaded", [True, False])
def test_closing_while_axes_wait_for_their_base_lets_everybody_go(order: Sequence[str], loaded: bool) -> None:
    bench = Bench(order)
    if loaded:
        bench.engine.load("sema")
    gate = bench.base.hold("encode")
    working = started(lambda: bench.engine.dense("base").encode(["keeps it busy"]))
    gate.reached()
    waiting = started(lambda: bench.engine.axes().encode(["ab"]))
    until(lambda: bench.engine.view("base").queued == 1)
    closing = started(lambda: bench.engine.close(LIMIT))
    until(lambda: not bench.engine.view("base").queued or order[0] == "sema")
    gate.open()
    assert closing.result(2 * LIMIT) is True
    assert working.exception(LIMIT) is None
    assert isinstance(failure(waiting), Closed | LoadFailed | None)
    assert bench.state("base") is State.UNLOADED

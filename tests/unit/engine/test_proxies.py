"""What Python callers hold: it loads at its first use and never before."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import numpy as np
import pytest
from engine_fakes import FakeAdapter, FakeReader, Shelf, config, encoder

from engine import AxesProxy, DenseProxy, Engine, InvalidInput, LoadFailed


class Bench:
    def __init__(self) -> None:
        shelf = Shelf()
        self.engine = Engine(config(encoder("one")), adapter=shelf, reader=FakeReader())
        self.adapter: FakeAdapter = shelf["one"]
        self.proxy = self.engine.dense("one")


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.engine.close()


def test_looking_never_loads(bench: Bench) -> None:
    assert repr(bench.proxy) == "<DenseProxy one: idle (not loaded)>"
    assert str(bench.proxy) == repr(bench.proxy)
    assert bench.proxy.loaded is False
    assert bench.proxy.peek().name == "one"
    assert bool(bench.proxy)
    assert bench.adapter.calls == []


@pytest.mark.parametrize(
    "name", ["_model", "__len__", "__array__", "__iter__", "_repr_html_", "__wrapped__", "_ipython_display_", "nothing"]
)
def test_private_and_unknown_look_ups_never_load(bench: Bench, name: str) -> None:
    assert not hasattr(bench.proxy, name)
    assert bench.adapter.calls == []


def test_what_a_debugger_does_never_loads(bench: Bench) -> None:
    dir(bench.proxy)
    vars(bench.proxy)
    hash(bench.proxy)
    copy.copy(bench.proxy)
    with contextlib.suppress(TypeError):
        iter(bench.proxy)  # type: ignore[call-overload]
    assert bench.adapter.calls == []


def test_similarity_and_nearest_are_pure_maths_and_never_load(bench: Bench) -> None:
    cosines = bench.proxy.similarity([[1.0, 0.0], [3.0, 4.0]], [[0.0, 2.0], [1.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(cosines, [[0.0, 1.0, 0.0], [0.8, 0.6, 0.0]], atol=1e-6)
    assert cosines.dtype == np.float32
    assert bench.adapter.calls == []


def test_nearest_gives_rows_and_cosines_best_first() -> None:
    rows = [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [2.0, 0.0]]
    found = DenseProxy.nearest([1.0, 0.0], rows, k=3)
    assert [row for row, _ in found] == [1, 3, 2]
    assert [cosine for _, cosine in found] == pytest.approx([1.0, 1.0, 0.5**0.5])
    assert DenseProxy.nearest([1.0, 0.0], rows, k=0) == []
    assert len(DenseProxy.nearest([1.0, 0.0], rows, k=99)) == 4


def test_warm_loads_and_is_no_use(bench: Bench) -> None:
    bench.proxy.warm()
    assert bench.proxy.loaded is True
    assert repr(bench.proxy) == "<DenseProxy one: idle>"
    view = bench.proxy.peek()
    assert (view.loads, view.first_encode_seconds) == (1, None)


def test_warm_raises_what_the_load_met(bench: Bench) -> None:
    bench.adapter.fail("load", RuntimeError("no"))
    with pytest.raises(LoadFailed):
        bench.proxy.warm()


def test_the_first_encode_loads(bench: Bench) -> None:
    assert bench.proxy.encode(["a", "bb"]) == [[1.0], [2.0]]
    assert bench.adapter.moves == ["load", "resume"]


@pytest.mark.parametrize(("name", "value"), [("dimension", 3), ("max_tokens", 256)])
def test_a_property_of_the_model_loads(bench: Bench, name: str, value: int) -> None:
    assert getattr(bench.proxy, name) == value
    assert bench.adapter.moves == ["load", "resume"]


def test_no_texts_give_no_vectors_and_load_nothing(bench: Bench) -> None:
    vectors = bench.proxy.encode([])
    assert (vectors.shape, vectors.dtype) == ((0, 0), np.float32)
    assert bench.adapter.calls == []


def test_one_text_instead_of_a_list_is_refused_before_anything_loads(bench: Bench) -> None:
    with pytest.raises(InvalidInput, match=r"\[text\]"):
        bench.proxy.encode("a text")
    assert bench.adapter.calls == []


@pytest.mark.parametrize("keep_alive", [None, 0.0, 300.0, -1.0])
def test_encoding_passes_its_keep_alive_on(bench: Bench, keep_alive: float | None) -> None:
    bench.proxy.encode(["a"], keep_alive=keep_alive)
    assert bench.proxy.peek().keep_alive_seconds == keep_alive


def test_no_texts_set_no_keep_alive(bench: Bench) -> None:
    bench.proxy.encode([], keep_alive=0.0)
    assert bench.proxy.peek().keep_alive_seconds is None


def test_looking_at_a_loaded_encoder_measures_nothing(bench: Bench) -> None:
    bench.proxy.warm()
    bench.adapter.calls.clear()
    repr(bench.proxy)
    bench.proxy.peek()
    assert bench.proxy.loaded
    assert bench.adapter.calls == []


def test_nothing_is_similar_to_nothing() -> None:
    for proxy in (DenseProxy, AxesProxy):
        assert proxy.similarity([], []).shape == (0, 0)
        assert proxy.similarity([[1.0, 0.0]], []).shape == (1, 0)
        assert proxy.similarity([], [[1.0, 0.0], [0.0, 1.0]]).shape == (0, 2)
        assert proxy.nearest([1.0, 0.0], []) == []

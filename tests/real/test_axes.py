"""Axes over real encoders: what they say is what the base's own vectors say of the anchor sentences."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from engines import library_of
from multi_models import m3
from numpy.typing import NDArray
from small_models import Dtype, bert

from engine import Engine, State, Unavailable, parse
from engine.adapters.kinds.universal_axes import UNIVERSAL_AXES

MINILM = {"kind": "dense", "model": "builtin:all-MiniLM-L6-v2"}
ANCHORS = ("Fire burns and gives light.", "Water flows down to the sea.", "A bank lends money.")
AXES = [{"name": f"axis-{index}", "anchor": anchor} for index, anchor in enumerate(ANCHORS)]
TEXTS = ["A pilot light is a small flame.", "", "The river is deep.", "\x00 \U0001f525 zzz", "loan " * 2000]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    encoders = {"minilm": MINILM, "sema": {"kind": "axes", "base": "minilm", "axes": AXES}}
    with Engine(parse({"hardware": {"device": "cpu", "idle_timeout_seconds": 0}, "encoders": encoders})) as engine:
        yield engine


def serving(folder: Path, kind: str = "dense", **settings: Any) -> Engine:
    """An engine with `base` from `folder`, and axes on it."""
    encoders = {
        "base": {"kind": kind, "model": str(folder), **settings},
        "sema": {"kind": "axes", "base": "base", "axes": AXES},
    }
    return Engine(parse({"hardware": {"device": "cpu", "idle_timeout_seconds": 0}, "encoders": encoders}))


def cosines(encode: Any, texts: list[str]) -> NDArray[np.float64]:
    """Of texts with ANCHORS, in double precision."""
    rows, anchors = (np.asarray(encode(list(of)), dtype=np.float64) for of in (texts, ANCHORS))
    found: NDArray[np.float64] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)) @ (
        anchors / np.linalg.norm(anchors, axis=1, keepdims=True)
    ).T
    return found


def library(folder: Path) -> Any:
    """The library's own encode."""
    return library_of("dense", folder).encode


def test_axes_say_what_minilm_says_of_their_anchors(engine: Engine) -> None:
    found = engine.axes().encode(TEXTS)
    assert found.shape == (len(TEXTS), len(AXES))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, cosines(engine.dense().encode, TEXTS), atol=1e-5)


def test_axes_say_what_the_library_itself_says(tmp_path: Path) -> None:
    folder = bert(tmp_path / "model")
    with serving(folder) as small:
        np.testing.assert_allclose(small.axes().encode(TEXTS), cosines(library(folder), TEXTS), atol=1e-5)


def test_an_encoder_of_many_forms_is_a_base_too(tmp_path: Path) -> None:
    with serving(m3(tmp_path / "m3"), "multi") as small:
        found = small.axes().encode(TEXTS)
        wanted = cosines(lambda texts: small.multi("base").encode(texts).dense, TEXTS)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_base_in_half_precision_says_nearly_the_same(dtype: Dtype, tmp_path: Path) -> None:
    folder = bert(tmp_path / "model")
    with serving(folder, dtype=dtype) as small:
        found, revision = small.axes().encode(TEXTS), small.view("sema").revision
    wanted = cosines(library(folder), TEXTS)
    likeness = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    assert likeness.min() >= 0.999
    assert f"+{dtype}+axes." in str(revision)


def test_a_signature_tells_what_a_text_is_about() -> None:
    encoders = {"minilm": MINILM, "sema": {"kind": "axes", "base": "minilm"}}
    about = {
        "The striker scored twice in the second half.": "sport",
        "The judge sentenced him to three years in prison.": "law",
        "Shares fell by four percent after the earnings report.": "money",
        "What a wonderful day, I am so happy.": "joy",
        "First open the lid, then press the red button.": "instruction",
    }
    with Engine(parse({"encoders": encoders})) as engine:
        assert {text: engine.axes().signature(text)[0][0] for text in about} == about
        assert engine.axes().names == tuple(axis.name for axis in UNIVERSAL_AXES)
        assert engine.view("sema").bytes_total == 20 * 384 * 4


def test_axes_cost_kilobytes_and_no_second_copy_of_their_base(engine: Engine) -> None:
    engine.unload_all()
    before = psutil.Process().memory_info().rss
    engine.axes().encode(["one"])
    base, axes = engine.view("minilm", measured=True), engine.view("sema", measured=True)
    assert (axes.bytes_on_device, axes.bytes_in_ram, axes.bytes_total) == (0, 3 * 384 * 4, 3 * 384 * 4)
    assert base.bytes_total is not None
    assert psutil.Process().memory_info().rss - before < 1.5 * base.bytes_total


def test_each_rung_of_both_gives_equal_bits(engine: Engine) -> None:
    before = engine.axes().encode(TEXTS)
    for step in (engine.offload_all, engine.unload_all):
        assert {outcome.result for outcome in step()} == {"done"}
        assert np.array_equal(engine.axes().encode(TEXTS), before)
    engine.offload("sema")
    assert engine.view("sema").state is State.IN_RAM
    assert np.array_equal(engine.axes().encode(TEXTS), before)


def test_eight_threads_racing_on_the_first_use_load_each_once(tmp_path: Path) -> None:
    with serving(bert(tmp_path / "model")) as small:
        barrier = threading.Barrier(8)
        found: list[Any] = [None] * 8

        def use(place: int) -> None:
            barrier.wait(10)
            found[place] = small.axes().encode(TEXTS)

        threads = [threading.Thread(target=use, args=(place,)) for place in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert all(np.array_equal(one, found[0]) for one in found)
        assert (small.view("base").loads, small.view("sema").loads) == (1, 1)


def test_a_base_whose_files_are_replaced_has_its_anchors_read_again(tmp_path: Path) -> None:
    folder, other = bert(tmp_path / "model"), bert(tmp_path / "other", seed=1)
    with serving(folder) as small:
        before, revision = small.axes().encode(TEXTS), small.view("sema").revision
        (other / "model.safetensors").replace(folder / "model.safetensors")
        found = small.axes().encode(TEXTS)
        small.axes().encode(TEXTS)
        assert small.view("sema").revision != revision
    np.testing.assert_allclose(found, cosines(library(folder), TEXTS), atol=1e-5)
    assert not np.allclose(found, before, atol=1e-2)


def test_a_base_without_its_weights_is_named_and_leaves_the_engine_unharmed(tmp_path: Path) -> None:
    folder = bert(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "away")
    with serving(folder) as small:
        with pytest.raises(Unavailable, match="sema stands on base: ") as failed:
            small.axes().encode(["one"])
        assert failed.value.next_step
        assert small.view("sema").state is State.UNAVAILABLE
        (folder / "away").rename(folder / "model.safetensors")
        assert small.axes().encode(["one"]).shape == (1, len(AXES))


def test_a_text_of_a_megabyte_holds_nobody_up(engine: Engine) -> None:
    long = "flame " * 170_000
    np.testing.assert_allclose(engine.axes().encode([long]), cosines(engine.dense().encode, [long]), atol=1e-5)

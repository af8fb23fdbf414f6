"""What is asked of models of images and texts, and what their cosines are worth; no model anywhere."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.errors import InvalidInput, Unavailable
from engine.operations.calibration import CLIP_FLOOR, calibrated, score_floor
from engine.operations.dense import Encoding
from engine.operations.image_text import EncodeImages
from engine.proxies.image_text import ImageTextProxy
from engine.state import EncoderView, Outcome, State


def png(colour: tuple[int, int, int] = (1, 2, 3)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), colour).save(buffer, "PNG")
    return buffer.getvalue()


class FakeTower:
    """Gives each image the number of its bytes."""

    def encode_images(self, images: Sequence[bytes], field: str) -> Encoding:
        assert field == "pictures"
        return Encoding(np.asarray([[len(image)] for image in images], dtype=np.float32), 0)


def test_the_images_go_to_the_tower_in_their_order() -> None:
    images = [png(), png((9, 9, 9)) + b"behind the end"]
    operation = EncodeImages(images, field="pictures")
    assert operation.size == 2
    assert operation(FakeTower()).vectors[:, 0].tolist() == [len(image) for image in images]


def test_only_the_image_part_of_a_model_of_both_can_do_it() -> None:
    assert (EncodeImages.kinds, EncodeImages.part) == (("image_text",), "image")


def test_no_images_are_no_vectors() -> None:
    operation = EncodeImages([])
    assert operation.size == 0
    assert operation.nothing().vectors.shape == (0, 0)
    assert operation.nothing().vectors.dtype == np.float32


def test_an_image_that_cannot_be_is_refused_when_the_operation_is_made() -> None:
    with pytest.raises(InvalidInput, match=r"images\[1\] is not an image") as caught:
        EncodeImages([png(), b"text"])
    assert caught.value.param == "images"


class FakeCaller:
    """Knows one model whose image tower was loaded once; `facts` is what that found out."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts
        self.loaded: list[str] = []

    def view(self, name: str) -> EncoderView:
        known = self.facts if name == "photo.image" or name in self.loaded else {}
        return EncoderView(
            name=name,
            kind="image_text",
            model="./photo",
            aliases=(),
            state=State.UNLOADED,
            idle_timeout_seconds=0.0,
            unload_timeout_seconds=0.0,
            metadata=known,
        )

    def load(self, name: str) -> Outcome:
        self.loaded.append(name)
        return Outcome(name, "done", State.ON_DEVICE)

    def call(self, name: str, *_: object, **__: object) -> Any:
        raise AssertionError(f"{name} was called")


FACTS = {"logit_scale": math.log(100.0), "logit_bias": -10.0, "score_floor": 0.05, "dimension": 8}


def test_what_either_tower_knows_is_enough() -> None:
    caller = FakeCaller(FACTS)
    proxy = ImageTextProxy(caller, "photo.text", "photo.image")
    assert (proxy.score_floor, proxy.dimension) == (0.05, 8)
    assert proxy.calibrate(0.1) == pytest.approx(0.5)
    assert caller.loaded == []


def test_where_neither_was_loaded_the_text_tower_is() -> None:
    caller = FakeCaller(FACTS)
    proxy = ImageTextProxy(caller, "photo.text", "photo.picture")
    assert proxy.score_floor == 0.05
    assert caller.loaded == ["photo.text"]


def test_without_a_scale_nothing_is_calibrated() -> None:
    proxy = ImageTextProxy(FakeCaller(FACTS | {"logit_scale": None}), "photo.text", "photo.image")
    with pytest.raises(Unavailable, match="logit_scale") as caught:
        proxy.calibrate([0.1])
    assert caught.value.next_step


def test_a_learned_sigmoid_judges_every_pair_for_itself() -> None:
    scale, bias = math.log(100.0), -10.0
    found = calibrated([[0.1, 0.05], [1.0, -1.0]], scale, bias)
    np.testing.assert_allclose(found, [[0.5, 1 / (1 + math.exp(5))], [1.0, 0.0]], atol=1e-6)
    assert found.dtype == np.float32
    assert found.shape == (2, 2)


def test_without_a_bias_the_candidates_of_a_row_compete() -> None:
    found = calibrated([[0.3, 0.2], [0.2, 0.2]], math.log(100.0), None)
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(found[0, 1] / found[0, 0], math.exp(-10), rtol=1e-4)
    np.testing.assert_allclose(found[1], [0.5, 0.5])


@pytest.mark.parametrize("bias", [-12.9, None])
def test_the_largest_scales_and_no_cosines_at_all_give_no_warning(bias: float | None) -> None:
    assert np.isfinite(calibrated([1.0, -1.0], math.log(1e6), bias)).all()
    assert calibrated(np.empty((0, 3)), 4.6, bias).shape == (0, 3)
    assert calibrated(0.2, 4.6, bias).shape == ()


def test_the_floor_is_where_the_sigmoid_gives_one_percent() -> None:
    # SigLIP base: exp(4.765) = 117.3, bias -12.93.
    floor = score_floor(4.765, -12.93)
    assert floor == pytest.approx(0.071, abs=0.001)
    assert calibrated(floor, 4.765, -12.93) == pytest.approx(0.01, rel=1e-4)


def test_where_no_sigmoid_was_learned_the_floor_is_that_of_the_family() -> None:
    assert score_floor(4.6, None) == score_floor(None, None) == CLIP_FLOOR
    assert score_floor(0.0, -50.0) == 1.0

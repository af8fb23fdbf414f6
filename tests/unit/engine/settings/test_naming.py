"""Which encoder, and which part of it, a name means."""

from __future__ import annotations

import pytest

from engine.errors import UnknownEncoder
from engine.settings.naming import components_named, encoder_named, resolve, settings_key
from engine.settings.parsing import parse

MODEL = {"model": "org/name"}
CONFIG = parse(
    {
        "encoders": {
            "minilm": {"kind": "dense", "model": "builtin:all-MiniLM-L6-v2", "aliases": ["small"]},
            "large": {"kind": "dense", "default": True, **MODEL},
            "photo": {"kind": "image_text", "aliases": ["clip"], "image": {"idle_timeout_seconds": 5}, **MODEL},
            "both": {"kind": "multi", **MODEL},
            "hidden.text": {"kind": "sparse", **MODEL},
        }
    }
)
TEXTS = ("dense", "multi", "image_text")


@pytest.mark.parametrize(
    ("name", "kinds", "part", "expected"),
    [
        ("small", ("dense",), None, "minilm"),
        (None, ("dense",), None, "large"),
        (None, TEXTS, "text", "large"),
        (None, ("sparse", "multi"), None, "hidden.text"),
        ("both", TEXTS, "text", "both"),
        ("photo", TEXTS, "text", "photo.text"),
        ("clip", TEXTS, "text", "photo.text"),
        ("clip.text", TEXTS, "text", "photo.text"),
        ("photo", ("image_text",), "image", "photo.image"),
        (None, ("image_text",), "image", "photo.image"),
    ],
)
def test_a_name_means_the_component_that_can_do_it(
    name: str | None, kinds: tuple[str, ...], part: str | None, expected: str
) -> None:
    assert resolve(CONFIG, name, kinds, part) == expected


@pytest.mark.parametrize(
    ("name", "kinds", "part", "said"),
    [
        ("nobody", ("dense",), None, "There is no encoder 'nobody'."),
        ("x" * 200, ("dense",), None, "There is no encoder of that name."),
        ("minilm", ("rerank",), None, "minilm is an encoder of kind dense, not rerank."),
        ("photo.image", TEXTS, "text", "photo.image is the image part"),
        ("minilm", ("image_text",), "image", "not image_text (image)"),
        (None, ("rerank",), None, "No rerank encoder is configured."),
    ],
)
def test_a_name_that_fits_nothing_says_why(
    name: str | None, kinds: tuple[str, ...], part: str | None, said: str
) -> None:
    with pytest.raises(UnknownEncoder, match=said.replace("(", r"\(").replace(")", r"\)")):
        resolve(CONFIG, name, kinds, part)


def test_an_encoder_with_parts_is_all_of_them_and_a_part_has_the_settings_of_its_own_table() -> None:
    text, image = components_named(CONFIG, "clip")
    assert (text.name, text.part, text.aliases) == ("photo.text", "text", ("clip.text",))
    assert text.idle_timeout_seconds is None
    assert image.idle_timeout_seconds == 5
    assert components_named(CONFIG, "photo.image") == (image,)


def test_where_the_settings_of_a_name_stand() -> None:
    assert settings_key(CONFIG, "small") == ("encoders", "minilm")
    assert settings_key(CONFIG, "clip") == ("encoders", "photo")
    assert settings_key(CONFIG, "photo.image") == ("encoders", "photo", "image")
    assert settings_key(CONFIG, "hidden.text") == ("encoders", "hidden.text")


@pytest.mark.parametrize("name", ["photo", "clip", "photo.image", "clip.text"])
def test_a_part_and_an_alias_lead_to_the_encoder_as_a_whole(name: str) -> None:
    assert encoder_named(CONFIG, name).name == "photo"


def test_an_encoder_whose_name_looks_like_a_parts_is_itself() -> None:
    assert encoder_named(CONFIG, "hidden.text").name == "hidden.text"

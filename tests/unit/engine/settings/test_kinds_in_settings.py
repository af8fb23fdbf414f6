"""What the settings of each kind of encoder may say, and what is said where they are wrong."""

from __future__ import annotations

from typing import Any

import pytest

from engine.adapters.registry import ADAPTERS, adapter_class
from engine.errors import SettingsError
from engine.kinds import KINDS
from engine.settings.config import Axis
from engine.settings.parsing import parse

DENSE = {"kind": "dense", "model": "org/name"}


def problems(**encoders: Any) -> list[str]:
    with pytest.raises(SettingsError) as error:
        parse({"encoders": encoders})
    return [str(problem) for problem in error.value.problems]


def test_every_row_of_the_table_names_an_adapter_of_its_own() -> None:
    classes = [adapter_class(*row.split(".")) for row in ADAPTERS]
    assert len(set(classes)) == len(ADAPTERS)
    assert KINDS == ("dense", "sparse", "multi", "rerank", "classify", "image_text", "tag", "axes", "plugin")


def test_axes_name_their_base_and_may_bring_anchors() -> None:
    axes = [{"name": "warmth", "anchor": "It is warm."}, {"name": "cold", "anchor": "It is cold."}]
    settings = parse(
        {"encoders": {"m": {**DENSE, "aliases": ["mini"]}, "a": {"kind": "axes", "base": "mini", "axes": axes}}}
    )
    found = settings.encoders[1]
    assert (found.model, found.base) == ("axes:mini", "mini")
    assert found.axes == (Axis("warmth", "It is warm."), Axis("cold", "It is cold."))
    assert parse(settings.as_mapping()) == settings
    assert settings.as_mapping()["encoders"]["a"]["axes"] == axes


def test_parts_have_tables_of_their_own_that_survive_the_way_to_plain_data() -> None:
    tables = {"text": {"pin": True}, "image": {"idle_timeout_seconds": 5.0, "device": "cpu"}}
    settings = parse({"encoders": {"photo": {"kind": "image_text", "model": "org/clip", "score_floor": 0.2, **tables}}})
    assert parse(settings.as_mapping()) == settings
    text, image = settings.encoders[0].components
    assert (text.pin, text.device, image.pin, image.device) == (True, None, False, "cpu")


def test_a_plug_in_gets_its_options_as_they_are() -> None:
    options = {"path": "/x", "deep": {"list": [1, 2]}}
    settings = parse({"encoders": {"mine": {"kind": "plugin", "model": "shouter", "options": options}}})
    assert settings.encoders[0].options == options
    assert parse(settings.as_mapping()) == settings
    hash(settings)


def test_the_hub_may_be_switched_off() -> None:
    assert parse({"hub": {"offline": True}}).hub.offline
    assert not parse({}).hub.offline


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("dense", "org/name@v1.0"),
        ("dense", "org/name@0123456789abcdef0123456789abcdef01234567"),
        ("image_text", "openai-clip:ViT-B/32"),
        ("image_text", "open-clip:ViT-L-14/dfn2b_s39b"),
        ("image_text", "siglip:google/siglip2-large-patch16-256"),
        ("image_text", "google/siglip2-base-patch16-224"),
        ("image_text", "~/models/clip"),
        ("tag", "en_core_web_sm"),
        ("tag", "./pipelines/mine"),
        ("plugin", "shouter"),
    ],
)
def test_a_reference_of_each_kind_is_understood(kind: str, model: str) -> None:
    assert parse({"encoders": {"x": {"kind": kind, "model": model}}}).encoders[0].model == model


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"kind": "dance", "model": "org/name"}, '"dance": must be one of: dense, sparse'),
        ({"model": "org/name"}, "the key kind is missing (one of: dense"),
        ({"kind": "rerank"}, "the key model is missing"),
        ({"kind": "axes"}, "the key base is missing (the name of a dense encoder)"),
        ({"kind": "axes", "base": "nobody"}, '"nobody": must be an encoder of kind dense or multi (m)'),
        ({"kind": "axes", "base": "m", "model": "org/name"}, "axes have no model of their own"),
        ({"kind": "axes", "base": "m", "axes": []}, "must be tables with a name and an anchor each"),
        ({"kind": "axes", "base": "m", "axes": [{"name": "a"}]}, "must be tables with a name and an anchor each"),
        ({"kind": "axes", "base": "m", "axes": [{"name": "a", "anchor": "x"}] * 2}, "must have names that differ"),
        ({**DENSE, "base": "m"}, "belongs under [encoders.NAME] of kind axes"),
        ({**DENSE, "text": {"pin": True}}, "unknown key"),
        ({**DENSE, "trust_remote_code": "yes"}, "must be true or false"),
        ({"kind": "image_text", "model": "org/clip", "text": 3}, "must be a table, written [encoders.x.text]"),
        ({"kind": "image_text", "model": "org/clip", "text": {"kind": "dense"}}, "belongs under [encoders.NAME]"),
        ({"kind": "image_text", "model": "org/clip", "score_floor": 3}, "must be a number from -1 to 1"),
        ({"kind": "image_text", "model": "openclip:x"}, '"openai-clip:ViT-B/32"'),
        ({"kind": "dense", "model": "openai-clip:ViT-B/32"}, 'a hub id ("org/name" or "org/name@revision")'),
        ({"kind": "tag", "model": "org/name"}, "must be the name of a spaCy pipeline"),
        ({"kind": "plugin", "model": "a/b"}, "must be the name of an entry point"),
        ({"kind": "plugin", "model": "a", "options": []}, "must be a table"),
    ],
)
def test_what_does_not_fit_a_kind_is_told_with_what_would(table: dict[str, Any], said: str) -> None:
    assert any(said in problem for problem in problems(m=DENSE, x=table)), problems(m=DENSE, x=table)


def test_the_name_of_a_part_belongs_to_its_encoder() -> None:
    [problem] = problems(photo={"kind": "image_text", "model": "org/clip"}, **{"photo.text": DENSE})
    assert problem == 'encoders.photo.text: the name "photo.text" already belongs to photo'

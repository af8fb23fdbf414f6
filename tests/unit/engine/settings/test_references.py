"""How the `model` setting is spelled."""

from __future__ import annotations

import pytest

from engine.settings import references


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("siglip:google/siglip2-base-patch16-224", "google/siglip2-base-patch16-224"),
        ("openai-clip:ViT-B/32", "openai/clip-vit-base-patch32"),
        ("open-clip:ViT-L/14/dfn2b_s39b", "open-clip:ViT-L-14/dfn2b_s39b"),
        ("/models/../models/clip", "/models/clip"),
    ],
)
def test_two_names_of_one_model_are_spelled_alike(short: str, long: str) -> None:
    assert references.canonical(short) == references.canonical(long) == long


@pytest.mark.parametrize("model", ["openai-clip:ViT-X/1", "siglip:so400m", "org/name@v1", "en_core_web_sm"])
def test_a_name_that_stands_for_nothing_else_stays_as_it_is(model: str) -> None:
    assert references.canonical(model) == model

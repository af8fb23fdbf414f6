"""The icon: the flame for each state, and how well it can be told at 16 pixels."""

from __future__ import annotations

from itertools import combinations

import pytest
from PIL import Image, ImageChops, ImageStat
from tray_fakes import a_view

from engine import State
from tray.icon.picture import EMBER, MARK_RED, PILOT_BLUE, SIZE, Colour, Flame, draw

DARK: Colour = (30, 32, 36)
LIGHT: Colour = (246, 246, 246)


@pytest.mark.parametrize(
    ("states", "flame"),
    [
        ((), Flame.BANKED),
        ((State.UNLOADED, State.IN_RAM), Flame.BANKED),
        ((State.UNLOADED, State.ON_DEVICE), Flame.LIT),
        ((State.LOADING,), Flame.LIT),
        ((State.ON_DEVICE, State.FAILED), Flame.FAILED),
        ((State.UNAVAILABLE,), Flame.FAILED),
    ],
)
def test_the_flame_follows_the_encoders(states: tuple[State, ...], flame: Flame) -> None:
    assert Flame.of(a_view(state=state) for state in states) is flame


@pytest.mark.parametrize("flame", Flame)
def test_the_icon_is_square_clear_at_its_corner_and_smooth_at_its_edges(flame: Flame) -> None:
    image = draw(flame)
    alpha = image.getchannel("A")
    assert (image.mode, image.size) == ("RGBA", (SIZE, SIZE))
    assert alpha.getpixel((0, 0)) == 0
    assert any(0 < level < 255 for level in range(256) if alpha.histogram()[level])


@pytest.mark.parametrize("panel", [DARK, LIGHT], ids=["dark", "light"])
@pytest.mark.parametrize("flame", Flame)
def test_at_16_pixels_the_icon_stands_out_from_the_panel(flame: Flame, panel: Colour) -> None:
    pixels = _on(panel, flame)
    background = _luminance(panel)
    clear = sum(_contrast(_luminance(pixel), background) >= 2.0 for pixel in pixels)
    assert clear >= 40  # of 256: a shape, not a few dots


@pytest.mark.parametrize("panel", [DARK, LIGHT], ids=["dark", "light"])
def test_at_16_pixels_the_three_flames_look_different(panel: Colour) -> None:
    pictures = {flame: _image_on(panel, flame) for flame in Flame}
    for one, other in combinations(Flame, 2):
        difference = ImageStat.Stat(ImageChops.difference(pictures[one], pictures[other])).mean
        assert sum(difference) / 3 > 12, (one, other)


@pytest.mark.parametrize(
    ("flame", "colour"), [(Flame.BANKED, PILOT_BLUE), (Flame.LIT, EMBER), (Flame.FAILED, MARK_RED)]
)
def test_each_flame_carries_its_own_colour(flame: Flame, colour: Colour) -> None:
    near = [pixel for pixel in _on(DARK, flame, 24) if max(abs(a - b) for a, b in zip(pixel, colour, strict=True)) < 40]
    assert len(near) >= 6


def _image_on(panel: Colour, flame: Flame, size: int = 16) -> Image.Image:
    icon = draw(flame).resize((size, size), Image.Resampling.BILINEAR)
    ground = Image.new("RGB", icon.size, panel)
    ground.paste(icon, mask=icon)
    return ground


def _on(panel: Colour, flame: Flame, size: int = 16) -> list[Colour]:
    raw = _image_on(panel, flame, size).tobytes()
    return [(raw[i], raw[i + 1], raw[i + 2]) for i in range(0, len(raw), 3)]


def _luminance(colour: Colour) -> float:
    """Relative luminance by WCAG 2.1."""
    red, green, blue = (
        level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4
        for level in (channel / 255 for channel in colour)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)

"""The icon: a value computed from states, and its drawing, a flame that is banked, lit, or marked as failed."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from typing import Final

from PIL import Image, ImageChops, ImageDraw

from engine import EncoderView, State

SIZE: Final = 64
"""Pixels on a side; panels scale it down, mostly to 16 to 24."""

_SCALE: Final = 8  # drawn larger by this factor, then reduced, as Pillow does not smooth edges


class Flame(Enum):
    """The three pictures of the icon."""

    BANKED = "banked"
    """No encoder is on its device; only the pilot light burns."""
    LIT = "lit"
    """At least one encoder is on its device or moves."""
    FAILED = "failed"
    """At least one encoder failed or cannot be used."""

    @classmethod
    def of(cls, views: Iterable[EncoderView]) -> Flame:
        """Return the flame for `views`; a failure outranks a light, because the user has to act on it."""
        states = {view.state for view in views}
        if states & {State.FAILED, State.UNAVAILABLE}:
            return cls.FAILED
        return cls.LIT if states & {State.ON_DEVICE, State.LOADING, State.STEPPING_DOWN} else cls.BANKED


Colour = tuple[int, int, int]
Point = tuple[float, float]

# Each colour keeps a contrast of about 3 : 1 against white and against near-black panels.
PILOT_BLUE: Final[Colour] = (59, 130, 246)
EMBER: Final[Colour] = (249, 115, 22)
MARK_RED: Final[Colour] = (220, 38, 38)
_EDGE: Final[Colour] = (194, 65, 12)
_CORE: Final[Colour] = (255, 224, 102)
_ASH: Final[Colour] = (128, 138, 153)
_WHITE: Final[Colour] = (255, 255, 255)

# Closed outlines in a unit square: a start, then cubic Bézier segments (control, control, end).
_Outline = tuple[Point, tuple[tuple[Point, Point, Point], ...]]
_FLAME: Final[_Outline] = (
    (0.54, 0.01),
    (
        ((0.58, 0.22), (0.88, 0.36), (0.88, 0.64)),
        ((0.88, 0.86), (0.71, 0.99), (0.50, 0.99)),
        ((0.29, 0.99), (0.12, 0.85), (0.12, 0.63)),
        ((0.12, 0.46), (0.23, 0.38), (0.27, 0.24)),
        ((0.32, 0.29), (0.36, 0.35), (0.39, 0.42)),
        ((0.46, 0.32), (0.50, 0.18), (0.54, 0.01)),
    ),
)
_HEART: Final[_Outline] = (
    (0.52, 0.46),
    (
        ((0.54, 0.58), (0.70, 0.63), (0.70, 0.77)),
        ((0.70, 0.88), (0.61, 0.94), (0.50, 0.94)),
        ((0.39, 0.94), (0.30, 0.88), (0.30, 0.77)),
        ((0.30, 0.65), (0.47, 0.62), (0.52, 0.46)),
    ),
)


@lru_cache(maxsize=16)
def draw(flame: Flame, size: int = SIZE) -> Image.Image:
    """Return the icon as a square RGBA image of `size` pixels, edges smoothed; do not draw on it."""
    large = size * _SCALE
    canvas = Image.new("RGBA", (large, large))
    body, heart = _mask(_FLAME, large), _mask(_HEART, large)
    if flame is Flame.LIT:
        _shade(canvas, body, (253, 154, 40), EMBER)
        _paint(canvas, _wall(body, large, 0.022), _EDGE)
        _shade(canvas, heart, (255, 244, 176), _CORE)
    elif flame is Flame.BANKED:
        _paint(canvas, _wall(body, large, 0.085), _ASH)
        _shade(canvas, heart, (110, 168, 255), PILOT_BLUE)
    else:
        _paint(canvas, body, _ASH)
        _mark(canvas, large)
    return canvas.resize((size, size), Image.Resampling.LANCZOS)


def _mark(canvas: Image.Image, large: int) -> None:
    """Put an exclamation mark on a red disc over the lower right corner."""
    hole, disc = _disc(large, 0.345), _disc(large, 0.295)
    alpha = ImageChops.subtract(canvas.getchannel("A"), hole)  # a clear ring around the disc, on any panel
    canvas.putalpha(alpha)
    _paint(canvas, disc, MARK_RED)
    pen = ImageDraw.Draw(canvas)
    x = 0.70 * large
    half = 0.05 * large
    pen.rounded_rectangle((x - half, 0.50 * large, x + half, 0.735 * large), radius=half, fill=_WHITE)
    pen.ellipse((x - half * 1.1, 0.79 * large, x + half * 1.1, 0.79 * large + half * 2.2), fill=_WHITE)


def _disc(large: int, radius: float) -> Image.Image:
    mask = Image.new("L", (large, large))
    x, y, r = 0.70 * large, 0.70 * large, radius * large
    ImageDraw.Draw(mask).ellipse((x - r, y - r, x + r, y + r), fill=255)
    return mask


def _paint(canvas: Image.Image, mask: Image.Image, colour: Colour) -> None:
    canvas.paste(Image.new("RGBA", canvas.size, (*colour, 255)), mask=mask)


def _shade(canvas: Image.Image, mask: Image.Image, top: Colour, bottom: Colour) -> None:
    slope = Image.linear_gradient("L").resize(canvas.size)
    shaded = Image.composite(
        Image.new("RGBA", canvas.size, (*bottom, 255)), Image.new("RGBA", canvas.size, (*top, 255)), slope
    )
    canvas.paste(shaded, mask=mask)


def _mask(outline: _Outline, large: int) -> Image.Image:
    mask = Image.new("L", (large, large))
    ImageDraw.Draw(mask).polygon(_points(outline, large), fill=255)
    return mask


def _wall(body: Image.Image, large: int, width: float) -> Image.Image:
    """The flame's rim, `width` thick inside its outline."""
    stroke = Image.new("L", (large, large))
    points = _points(_FLAME, large)
    pen, radius = ImageDraw.Draw(stroke), width * large
    pen.line([*points, points[0]], fill=255, width=round(2 * radius))
    for x, y in points:  # Pillow's own joints leave hairlines
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return ImageChops.darker(body, stroke)


def _points(outline: _Outline, large: int, steps: int = 24) -> list[Point]:
    start, segments = outline
    points = [start]
    for first, second, end in segments:
        for step in range(1, steps + 1):
            t = step / steps
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            curve = (start, first, second, end)
            x, y = (sum(weight * point[axis] for weight, point in zip(weights, curve, strict=True)) for axis in (0, 1))
            points.append((x, y))
        start = end
    return [(x * large, y * large) for x, y in points]

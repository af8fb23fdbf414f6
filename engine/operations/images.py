"""Images as bytes, and their decoding to pixels; the one file of the engine that imports Pillow.

Pillow's limit for decompression bombs holds, at its lower bound: what it only warns of is refused too.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Final

from engine.errors import InvalidInput

if TYPE_CHECKING:
    from PIL.Image import Image as Image

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO")
"""The formats that are read, by Pillow's names; others of its readers start programs (EPS) or serve no photo."""

_LONGEST_SIDE: Final = 200
"""Times the shorter side: resizing a very long, thin image would need gigabytes."""
_DEEP: Final = ("I;16", "I;16L", "I;16B", "I;16N", "I")
"""Pillow's modes of one channel with 16 bits; `I` is how it reads such a PGM or TIFF."""


def check_images(values: object, field: str) -> None:
    """Accept a list of images as bytes, by their first bytes; decodes no pixel. Raises InvalidInput."""
    if isinstance(values, str | bytes | bytearray) or not isinstance(values, Sequence):
        raise InvalidInput(f"{field} must be a list of images.", param=field, next_step="Write one as [image].")
    for index, value in enumerate(values):
        what = f"{field}[{index}]"
        if not isinstance(value, bytes | bytearray | memoryview):
            raise InvalidInput(f"{what} is not the bytes of an image.", param=field)
        _opened(bytes(value), what, field).close()


def decoded(data: bytes, what: str, field: str) -> Image:
    """Return the image as 8-bit RGB: upright, on white where it is transparent, of an animation the first frame.

    `what` names it in the error. Raises InvalidInput for one that is cut off or broken.
    """
    from PIL import ImageOps

    with _opened(data, what, field) as image:
        try:
            image.load()
            return _on_white(_shallow(ImageOps.exif_transpose(image), what, field))
        except InvalidInput:
            raise
        except Exception as error:  # broken images raise anything, from SyntaxError to struct.error
            raise _refused(what, field, "is cut off or broken, so it cannot be decoded") from error


def _opened(data: bytes, what: str, field: str) -> Image:
    """The image with only its header read."""
    from PIL import Image

    if not data:
        raise _refused(what, field, "is empty")
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(what, field) from error
    except Exception as error:  # as above
        raise _refused(what, field, "is not an image, or of no format that is read") from error
    width, height = image.size
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise _too_large(what, field)
    if max(width, height) > _LONGEST_SIDE * min(width, height):
        raise _refused(what, field, f"is more than {_LONGEST_SIDE} times as long as wide ({width} x {height})")
    return image


def _shallow(image: Image, what: str, field: str) -> Image:
    """The image with 8 bits a channel: the full range of 16 bits becomes the full range of 8."""
    if image.mode == "F":
        raise _refused(what, field, "has floating-point pixels, whose range nobody knows")
    if image.mode not in _DEEP:
        return image
    import numpy as np
    from PIL import Image as Pixels

    deep = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
    return Pixels.fromarray(((deep * 255 + 32767) // 65535).astype(np.uint8))


def _on_white(image: Image) -> Image:
    """As transformers does it."""
    from PIL import Image as Pixels

    if "A" not in image.getbands() and "a" not in image.getbands() and image.info.get("transparency") is None:
        return image.convert("RGB")
    seen = image.convert("RGBA")
    white = Pixels.new("RGBA", seen.size, (255, 255, 255, 255))
    return Pixels.alpha_composite(white, seen).convert("RGB")


def _too_large(what: str, field: str) -> InvalidInput:
    return _refused(what, field, "has more pixels than are decoded", "Send it scaled down.")


def _refused(what: str, field: str, problem: str, next_step: str | None = None) -> InvalidInput:
    known = "Send it whole, as PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF."
    return InvalidInput(f"{what} {problem}.", param=field, next_step=next_step or known)

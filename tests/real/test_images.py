"""Every sort of image file that people have becomes the pixels that they see, or a clear refusal."""

from __future__ import annotations

import contextlib
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from picture_files import picture, written
from PIL import Image

from engine.errors import InvalidInput
from engine.operations.images import check_images, decoded


def pixels(data: bytes) -> np.ndarray:
    """What `decoded` makes of it, once the look at the header lets it through."""
    check_images([data], "images")
    image = decoded(data, "images[0]", "images")
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def png(width: int, height: int, *, depth: int = 8, colour: int = 0, body: bytes = b"") -> bytes:
    """A PNG by hand, whose header may promise more than its body holds."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "ICO", "GIF"])
def test_a_lossless_file_gives_its_own_pixels(kind: str) -> None:
    image = picture(48, 48)
    if kind == "GIF":
        image = image.quantize(64).convert("RGB")
    options: dict[str, Any] = {"sizes": [(48, 48)]} if kind == "ICO" else {}
    np.testing.assert_array_equal(pixels(written(image, kind, **options)), np.asarray(image))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "JPEG2000"])
def test_a_lossy_file_gives_nearly_its_own_pixels(kind: str) -> None:
    from PIL import features

    wanted = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}.get(kind)
    if wanted and not features.check(wanted):
        pytest.skip(f"this Pillow was built without {kind}")
    image = picture()
    assert np.abs(pixels(written(image, kind, quality=95)) - np.asarray(image)).mean() < 8


def test_one_pixel_is_an_image() -> None:
    assert pixels(written(Image.new("RGB", (1, 1), (9, 8, 7)))).tolist() == [[[9, 8, 7]]]


def test_cmyk_becomes_the_colours_that_it_prints() -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    found = pixels(written(red, "JPEG", quality=100))[4, 4]
    assert found[0] > 200
    assert found[1:].max() < 60


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_become_eight_over_the_whole_range(kind: str) -> None:
    deep = np.asarray([[0, 128, 257 * 100], [257 * 200, 65535 - 100, 65535]], dtype=np.uint16)
    found = pixels(written(Image.fromarray(deep), kind))
    assert found[..., 0].tolist() == [[0, 0, 100], [200, 255, 255]]
    assert (found == found[..., :1]).all()


def test_a_deep_pgm_becomes_eight_bits_too() -> None:
    data = b"P5 2 1 65535\n" + struct.pack(">HH", 257 * 10, 65535)
    assert pixels(data)[0, :, 0].tolist() == [10, 255]


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGBA", "WEBP")])
def test_what_one_can_see_through_stands_on_white(mode: str, kind: str) -> None:
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    if mode == "P":
        image, options = Image.new("P", (2, 1), 0), {"transparency": 1}
        image.putpalette([200, 0, 0, 0, 0, 0])
        image.putpixel((1, 0), 1)
    else:
        image = Image.new("RGBA", (2, 1), (200, 0, 0, 255))
        image.putpixel((1, 0), (0, 0, 0, 0))
    found = pixels(written(image.convert(mode), kind, **options))
    assert found[0, 1].tolist() == [255, 255, 255]
    assert found[0, 0].min() < 100


def test_of_what_moves_the_first_frame_counts() -> None:
    first, second = Image.new("RGB", (8, 8), (250, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 250))
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        data = written(first, kind, save_all=True, append_images=[second])
        assert pixels(data)[4, 4].argmax() == 0, kind


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_seen_upright_as_its_exif_says(orientation: int) -> None:
    upright = picture(24, 16)
    # What a camera stores so that turning it by its orientation gives the upright picture.
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright if undo is None else upright.transpose(undo)
    np.testing.assert_array_equal(pixels(written(stored, "PNG", exif=exif)), np.asarray(upright))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is empty"),
        (b"hello, this is no image at all", "is not an image"),
        (b"\x89PNG\r\n\x1a\n", "is not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "is not an image"),
        (png(9500, 9500), "more pixels"),
        (png(60000, 60000), "more pixels"),
        (png(100000, 1), "times as long as wide"),
    ],
    ids=["empty", "text", "signature alone", "EPS", "over the warning", "over the error", "a line"],
)
def test_the_header_is_enough_to_refuse(data: bytes, told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as caught:
        check_images([written(picture()), data], "images")
    assert caught.value.message.startswith("images[1] ")
    assert caught.value.param == "images"
    assert caught.value.next_step


def test_a_bomb_is_refused_where_warnings_are_only_shown() -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InvalidInput, match="more pixels"):
            check_images([png(9500, 9500)], "images")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_file_that_is_cut_off_is_refused_and_nothing_else_is_raised(kind: str, kept: float) -> None:
    whole = written(picture(200, 150), kind)
    cut = whole[: int(len(whole) * kept)]
    with pytest.raises(InvalidInput, match=r"cut off|is not an image"):
        pixels(cut)


def test_a_byte_in_the_middle_that_is_wrong_raises_nothing_else() -> None:
    for kind in ("PNG", "GIF", "TIFF", "WEBP"):
        whole = bytearray(written(picture(64, 64), kind))
        for place in range(8, len(whole), max(1, len(whole) // 40)):
            spoilt = bytearray(whole)
            spoilt[place] ^= 0xFF
            with contextlib.suppress(InvalidInput):
                pixels(bytes(spoilt))


def test_floating_point_pixels_are_refused() -> None:
    data = written(Image.fromarray(np.zeros((4, 4), dtype=np.float32)), "TIFF")
    with pytest.raises(InvalidInput, match="floating-point"):
        pixels(data)


@pytest.mark.parametrize("value", [b"bytes", "text", 7, None, [1], ["text"], [None]])
def test_what_is_no_list_of_bytes_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="images"):
        check_images(value, "images")

"""`POST /encode/image` and `POST /encode/image_text`, with towers that are fakes."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from engine_fakes import until
from http_fakes import Caller, FakeDense, caller_of, unit
from PIL import Image

from engine.engine import Engine
from engine.http.images import image_bytes
from engine.operations.dense import Encoding
from engine.settings.parsing import parse
from engine.state import State

TOKEN = "the-token"
SETTINGS = {
    "hardware": {"idle_timeout_seconds": 0},
    "encoders": {
        "photo": {"kind": "image_text", "model": "./fake", "aliases": ["pictures"]},
    },
}


class FakeTower(FakeDense):
    """Gives each image its number of bytes."""

    def encode_images(self, images: Sequence[bytes], field: str = "images") -> Encoding:
        assert self.config.part == "image"
        return Encoding(np.asarray([[len(image), 0.5] for image in images], dtype=np.float32), 0)


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(parse(SETTINGS), adapter=FakeTower) as engine:
        yield engine


@pytest.fixture
def caller(engine: Engine) -> Caller:
    return caller_of(engine)


def png(width: int = 4) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def plain(data: bytes) -> str:
    return base64.b64encode(data).decode()


def posted(caller: Caller, images: Any, **fields: Any) -> Any:
    return caller.send("POST", "/encode/image", json={"images": images, **fields})


def test_images_come_back_as_vectors_and_the_text_tower_stays_away(engine: Engine, caller: Caller) -> None:
    answer = posted(caller, [plain(png()), f"data:image/png;base64,{plain(png(9))}"])
    assert answer.status_code == 200
    vectors = [[float(len(png())), 0.5], [float(len(png(9))), 0.5]]
    assert answer.json() == {"vectors": vectors, "dim": 2, "model": "photo.image", "revision": "7"}
    assert engine.view("photo.text").loads == 0


def test_texts_go_to_the_text_tower_alone(engine: Engine, caller: Caller) -> None:
    answer = caller.send("POST", "/encode/image_text", json={"texts": ["cat", ""], "model": "pictures"})
    assert answer.json() == {
        "vectors": [[3.0, 0.5, -2.0], [0.0, 0.5, -2.0]],
        "dim": 3,
        "model": "pictures",
        "revision": "7",
        "truncated": 0,
    }
    assert engine.view("photo.image").loads == 0


def test_files_of_a_form_are_encoded_in_their_order(caller: Caller) -> None:
    files = [("images", ("a.png", png(5))), ("files", ("b", png(11))), ("images", ("c.png", png(6)))]
    answer = caller.send("POST", "/encode/image", files=files, data={"model": "photo", "keep_alive": "5m"})
    assert answer.status_code == 200
    assert [row[0] for row in answer.json()["vectors"]] == [len(png(5)), len(png(11)), len(png(6))]
    assert answer.json()["model"] == "photo"


def test_a_form_may_hold_data_uris_and_says_how_long_to_stay(engine: Engine, caller: Caller) -> None:
    boundary = (("images", (None, f"data:image/png;base64,{plain(png())}")), ("keep_alive", (None, "0")))
    answer = caller.send("POST", "/encode/image", files=boundary)
    assert answer.status_code == 200
    assert engine.call("photo.text", lambda adapter: True)
    until(lambda: engine.view("photo.image").state is State.UNLOADED)


def test_a_form_with_a_wrong_field_is_refused_as_json_is(caller: Caller) -> None:
    files = [("images", ("a.png", png()))]
    answer = caller.send("POST", "/encode/image", files=files, data={"keep_alive": "soon"})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("keep_alive: must be a number of seconds")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/a.png", "HTTPS://example.org/a.png", "file:///etc/passwd", "ftp://x/y", " http://x"]
)
def test_a_url_is_refused_and_never_fetched(caller: Caller, url: str) -> None:
    answer = posted(caller, [plain(png()), url])
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("images: [1] is a URL, and nothing is fetched here")


@pytest.mark.parametrize(
    ("images", "told"),
    [
        ("one text", "must be a list of images"),
        (None, "must be a list of images"),
        ([1], "must be a list of images"),
        (["!!"], "[0] is not valid base64"),
        (["é"], "[0] is not valid base64"),
        (["AAAAA"], "[0] is not valid base64"),
        (["AA=A"], "[0] is not valid base64"),
        (["data:image/png,xyz"], "[0] is a data URI without base64"),
        (["data:image/png;base64"], "[0] is a data URI without base64"),
    ],
)
def test_what_is_no_base64_is_refused(caller: Caller, images: Any, told: str) -> None:
    answer = posted(caller, images)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"images: {told}")
    assert answer.json()["title"] == "Input not accepted"


def test_what_is_no_image_is_named_by_its_place(caller: Caller) -> None:
    for wrong in ("", plain(b"no image")):
        answer = posted(caller, [plain(png()), wrong])
        assert answer.status_code == 400
        assert answer.json()["detail"].startswith("images[1] is ")
        assert answer.json()["next_step"]


def test_images_are_counted_before_they_are_read_and_in_a_form_too(caller: Caller) -> None:
    assert "the limit is 2048" in posted(caller, [""] * 2049).json()["detail"]
    parts: list[Any] = [("images", ("x.png", png())), ("images", (None, plain(png())))]
    for part in parts:
        for count in (2049, 2100):
            answer = caller.send("POST", "/encode/image", files=[part] * count)
            assert answer.status_code == 422
            assert "the limit is 2048" in answer.json()["detail"]


def test_the_openai_route_reaches_the_text_tower_by_the_models_name(caller: Caller) -> None:
    answer = caller.embed(["cat"], model="photo")
    assert answer.status_code == 200
    assert answer.json()["data"][0]["embedding"] == pytest.approx(unit([3.0, 0.5, -2.0]))


def test_base64_is_read_in_every_spelling() -> None:
    data = bytes(range(256)) + b"\xfb\xff"
    standard = base64.b64encode(data).decode()
    safe = base64.urlsafe_b64encode(data).decode()
    spellings = [standard, safe, standard.rstrip("="), safe.rstrip("="), "\n ".join(standard)]
    spellings += [f"data:;base64,{standard}", f"DATA:image/png;charset=x;BASE64,{safe}"]
    for text in spellings:
        assert image_bytes(text) == data
    assert image_bytes("") == b""


@pytest.mark.parametrize("field", ["image", "file", "files", "images", "upload[]"])
def test_every_file_of_a_form_is_an_image_whatever_its_field_is_called(caller: Caller, field: str) -> None:
    answer = caller.send("POST", "/encode/image", files=[(field, ("x.png", png()))])
    assert (answer.status_code, len(answer.json()["vectors"])) == (200, 1)


def test_a_form_without_an_image_says_what_to_send(engine: Engine, caller: Caller) -> None:
    nothing = caller.raw(b"--x--\r\n", "/encode/image", Content_Type="multipart/form-data; boundary=x")
    text = caller.send("POST", "/encode/image", files=[("model", (None, "photo"))])
    unchosen = b'--x\r\nContent-Disposition: form-data; name="images"; filename=""\r\n\r\n\r\n--x--\r\n'
    browser = caller.raw(unchosen, "/encode/image", Content_Type="multipart/form-data; boundary=x")
    for answer in (nothing, text, browser):
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith("images: must be sent, each as a file")
    assert engine.view("photo.image").loads == 0


def test_a_form_without_a_boundary_is_refused(caller: Caller) -> None:
    assert caller.raw(b"x", "/encode/image", Content_Type="multipart/form-data").status_code == 400


def test_a_form_that_is_cut_off_is_refused(caller: Caller) -> None:
    whole = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' + png() + b"\r\n--x--\r\n"
    form = {"Content_Type": "multipart/form-data; boundary=x"}
    assert caller.raw(whole, "/encode/image", **form).status_code == 200
    for end in (0, 10, 60, len(whole) - 20, len(whole) - 7, len(whole) - 4):
        answer = caller.raw(whole[:end], "/encode/image", **form)
        assert (answer.status_code, "cut off" in answer.json()["detail"]) == (400, True), end


def test_a_form_says_how_long_to_stay_in_seconds_too(engine: Engine, caller: Caller) -> None:
    files = [("images", ("a.png", png()))]
    assert caller.send("POST", "/encode/image", files=files, data={"ttl": "0"}).status_code == 200
    engine.call("photo.text", lambda adapter: True)
    assert engine.view("photo.image").state.name == "UNLOADED"
    for wrong in ("soon", "nan", "inf", ""):
        answer = caller.send("POST", "/encode/image", files=files, data={"ttl": wrong})
        assert (answer.status_code, answer.json()["detail"].startswith("ttl: must be")) == (422, True)


def test_a_data_uri_in_a_form_may_be_as_large_as_a_body(caller: Caller) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    assert len(plain(buffer.getvalue())) > 1 << 20
    answer = caller.send("POST", "/encode/image", files=[("images", (None, plain(buffer.getvalue())))])
    assert answer.status_code == 200


def test_json_by_any_name_is_taken_and_a_bare_image_is_told_both_ways(caller: Caller) -> None:
    body = b'{"images": []}'
    for kind in ("application/json; charset=utf-8", "application/vnd.images+json"):
        assert caller.raw(body, "/encode/image", Content_Type=kind).status_code == 200
    for kind in ("image/png", "application/jsonp", "text/json"):
        answer = caller.raw(png(), "/encode/image", Content_Type=kind)
        assert answer.status_code == 422
        assert "application/json" in answer.json()["detail"]
        assert "multipart/form-data" in answer.json()["detail"]

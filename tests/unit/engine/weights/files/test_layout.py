"""The head of a safetensors file: what we write we read, and what cannot be true is refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import LoadFailed
from engine.weights.files import layout

ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def written(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def test_what_we_write_we_read(path: Path) -> None:
    entries = [("a", "F32", (3, 2)), ("b.weight", "I64", ()), ("ü", "BF16", (0, 4)), ("d", "BOOL", (5,))]
    head = layout.header(entries, {"format": "pt"})
    path.write_bytes(head + bytes(24 + 8 + 5))
    places = layout.read(path)
    assert [(p.name, p.dtype, p.shape) for p in places] == entries
    assert [(p.begin - len(head), p.nbytes) for p in places] == [(0, 24), (24, 8), (32, 0), (32, 5)]


@pytest.mark.parametrize("count", range(8))
def test_the_first_tensor_is_aligned_whatever_the_names_are(count: int) -> None:
    assert len(layout.header([("x" * count, "U8", (1,))], {})) % 64 == 0


@pytest.mark.parametrize(
    "entries",
    [[("a", "F32", ()), ("a", "F32", ())], [("__metadata__", "F32", ())], [("a", "F4", (2,))]],
    ids=["a name twice", "a reserved name", "a dtype below one byte"],
)
def test_a_header_that_no_reader_would_take_is_not_made(entries: list[tuple[str, str, tuple[int, ...]]]) -> None:
    with pytest.raises(ValueError, match=r"name|dtype"):
        layout.header(entries, {})


def test_places_come_in_the_order_of_their_bytes(path: Path) -> None:
    late = {"dtype": "U8", "shape": [3], "data_offsets": [8, 11]}
    assert [p.name for p in layout.read(written(path, {"late": late, "early": ONE}, bytes(11)))] == ["early", "late"]


def test_a_dtype_that_we_do_not_know_keeps_its_bytes(path: Path) -> None:
    odd = {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}
    (place,) = layout.read(written(path, {"odd": odd}, bytes(2)))
    assert (place.dtype, place.nbytes) == ("F4", 2)


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        {"a": 1},
        {"a": {k: v for k, v in ONE.items() if k != "shape"}},
        {"a": ONE | {"dtype": 4}},
        {"a": ONE | {"shape": [-2]}},
        {"a": ONE | {"shape": [2.0]}},
        {"a": ONE | {"shape": [2, True]}},
        {"a": ONE | {"shape": [3]}},
        {"a": ONE | {"shape": [1 << 62, 4]}},
        {"a": ONE | {"data_offsets": [8, 0]}},
        {"a": ONE | {"data_offsets": [-8, 0]}},
        {"a": ONE | {"data_offsets": [0, 4]}},
        {"a": ONE | {"data_offsets": [0, 4, 8]}},
    ],
    ids=lambda header: str(header)[:60],
)
def test_a_header_that_cannot_be_true_is_refused(path: Path, header: Any) -> None:
    with pytest.raises(LoadFailed, match="not a valid safetensors file") as caught:
        layout.read(written(path, header, bytes(8)))
    assert str(path) in caught.value.message
    assert caught.value.next_step


def test_a_header_of_gigabytes_is_not_read(path: Path) -> None:
    path.write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    with pytest.raises(LoadFailed, match="announces a header"):
        layout.read(path)


@pytest.mark.parametrize("length", [0, 7, 8, 20, -1])
def test_a_file_cut_short_anywhere_is_called_that(path: Path, length: int) -> None:
    written(path, {"a": ONE}, bytes(8))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(LoadFailed, match="cut short") as caught:
        layout.read(path)
    assert caught.value.next_step


def test_a_file_that_is_not_there_is_a_failed_load(path: Path) -> None:
    with pytest.raises(LoadFailed, match="cannot be read"):
        layout.read(path)

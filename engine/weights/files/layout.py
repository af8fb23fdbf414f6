"""The layout of a safetensors file: its header, read and written without torch.

The format (https://huggingface.co/docs/safetensors): 8 bytes with the header's length N as a little-endian integer,
N bytes of JSON, then the tensors' bytes, little-endian and in C order, without gaps.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine.errors import LoadFailed

ITEM_SIZES: Final[Mapping[str, int]] = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E4M3FNUZ": 1,
    "F8_E5M2": 1,
    "F8_E5M2FNUZ": 1,
    "F8_E8M0": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
    "C64": 8,
}
"""Bytes of one element, by safetensors' name of the dtype; dtypes below one byte are left out."""

_LENGTH_BYTES: Final = 8
_LONGEST_HEADER: Final = 100_000_000  # bytes; safetensors' own limit
_ALIGNMENT: Final = 64  # bytes; a cache line, and the widest vector register
_METADATA: Final = "__metadata__"


@dataclass(frozen=True, slots=True)
class Place:
    """The place of one tensor in a file."""

    name: str
    dtype: str
    """In safetensors' spelling: F32, F16, BF16, I64, BOOL, F8_E4M3, ..."""
    shape: tuple[int, ...]
    begin: int
    """The first byte, counted from the start of the file."""
    nbytes: int


def read(path: Path) -> tuple[Place, ...]:
    """Return the places of the tensors of a safetensors file, in the order of their bytes; reads only the header.

    Raises LoadFailed if the file cannot be read or is cut short, or if its header contradicts the file or itself.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            start = _LENGTH_BYTES + length
            if size < _LENGTH_BYTES:
                raise _cut_short(path, size, _LENGTH_BYTES)
            if length > _LONGEST_HEADER:
                raise _malformed(path, f"it announces a header of {length} bytes")
            if size < start:
                raise _cut_short(path, size, start)
            text = file.read(length)
    except OSError as error:
        raise LoadFailed(
            f"{path} cannot be read: {error.strerror or error}.", next_step="Check that it is there and readable."
        ) from error
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _malformed(path, "its header is not JSON") from error
    if not isinstance(parsed, dict):
        raise _malformed(path, "its header is not a JSON object")
    parsed.pop(_METADATA, None)
    places = sorted((_place(path, name, fields, start) for name, fields in parsed.items()), key=lambda p: p.begin)
    end = max((place.begin + place.nbytes for place in places), default=start)
    if size < end:
        raise _cut_short(path, size, end)
    return tuple(places)


def header(entries: Sequence[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """Return the header of a file with these tensors (name, dtype, shape), whose bytes follow in this order.

    Its length is a multiple of 64 bytes, so that the first tensor is aligned. Raises ValueError for a dtype missing in
    `ITEM_SIZES` and for a repeated name.
    """
    described: dict[str, Any] = {_METADATA: dict(metadata)}
    begin = 0
    for name, dtype, shape in entries:
        if name in described:
            raise ValueError(f"the name {name!r} comes twice or is reserved")
        end = begin + size_of(dtype, shape)
        described[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-(_LENGTH_BYTES + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def size_of(dtype: str, shape: tuple[int, ...]) -> int:
    """Return a tensor's size in bytes; raises ValueError for a dtype missing in `ITEM_SIZES`."""
    if dtype not in ITEM_SIZES:
        raise ValueError(f"safetensors' dtype {dtype!r} is not known here")
    return math.prod(shape) * ITEM_SIZES[dtype]


def _place(path: Path, name: str, fields: object, start: int) -> Place:
    match fields:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]} if (
            _are_counts([*shape, begin, end]) and begin <= end
        ):
            place = Place(name, dtype, tuple(shape), start + begin, end - begin)
        case _:
            raise _malformed(path, f"its header does not say where {name!r} lies")
    if dtype in ITEM_SIZES and place.nbytes != size_of(dtype, place.shape):
        raise _malformed(path, f"{name!r} has {place.nbytes} bytes, which is not {dtype} of shape {list(shape)}")
    return place


def _are_counts(values: list[Any]) -> bool:
    return all(type(value) is int and value >= 0 for value in values)  # JSON's true is an int for isinstance


def _cut_short(path: Path, size: int, wanted: int) -> LoadFailed:
    return LoadFailed(
        f"{path} is cut short: it has {size} bytes and should have {wanted} or more.",
        next_step="Download or copy the model again.",
    )


def _malformed(path: Path, why: str) -> LoadFailed:
    return LoadFailed(f"{path} is not a valid safetensors file: {why}.", next_step="Download or copy the model again.")

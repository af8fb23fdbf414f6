"""JSON answers, straight from numpy arrays and frozen values."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import orjson
from starlette.responses import Response

_PLAIN: Final = orjson.OPT_NON_STR_KEYS
_NUMPY: Final = _PLAIN | orjson.OPT_SERIALIZE_NUMPY
_PIECES: Final = 4096
"""A list is serialised in at most this many pieces: orjson holds the GIL during one, and an answer may be 100 MB."""

_FEW: Final = 16
"""Longest list whose items are split themselves: one text may have as long an answer as a thousand."""


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return `content` as JSON; it may contain numpy arrays and dataclasses anywhere.

    Raises TypeError for values that JSON does not have, and RecursionError.
    """
    return Response(b"".join(_pieces(content)), status, dict(headers or {}), media_type="application/json")


async def json_response_off_loop(build: Callable[[], Any]) -> Response:
    """Build the content and return it as JSON, on another thread than the event loop's: it may be large.

    Raises as `json_response`.
    """
    return await asyncio.to_thread(lambda: json_response(build()))


def _pieces(value: Any) -> Iterator[bytes]:
    """Yield `value` as JSON: mappings key by key, the lists in them a few items at a time."""
    if type(value) is dict and 0 < len(value) <= _PIECES:
        opening = b"{"
        for key, item in value.items():
            yield opening + _dumped({key: None})[1:-5]  # without the null and the braces
            yield from _pieces(item)
            opening = b","
        yield b"}"
    elif _length(value):
        step = len(value) // _PIECES + 1
        opening = b"["
        for start in range(0, len(value), step):
            yield opening
            if len(value) > _FEW or type(value) not in (list, tuple):
                yield _dumped(value[start : start + step])[1:-1]
            else:
                yield from _pieces(value[start])
            opening = b","
        yield b"]"
    else:
        yield _dumped(value)


def _length(value: Any) -> int:
    """Return the number of items of a list or an array; 0 for anything else."""
    is_array = type(value).__module__ == "numpy" and getattr(value, "ndim", None)
    return len(value) if is_array or type(value) in (list, tuple) else 0


def _dumped(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=_NUMPY, default=_contiguous)
    except TypeError:  # orjson calls no default for an array of the other byte order
        return orjson.dumps(value, option=_PLAIN, default=_contiguous)


def _contiguous(value: Any) -> Any:
    """Serialise the numpy values that orjson refuses: arrays in another memory or byte order, or of no dimension."""
    import numpy as np

    if isinstance(value, np.ndarray):
        value = np.asarray(value, dtype=value.dtype.newbyteorder("="), order="C")[()]
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError
    return orjson.Fragment(orjson.dumps(value, option=_NUMPY))


def retry_after(seconds: float | None) -> dict[str, str]:
    """Return the Retry-After header for a wait, rounded up to whole seconds; no header for None."""
    return {} if seconds is None else {"Retry-After": str(max(1, -int(-seconds // 1)))}

"""JSON answers, straight from numpy arrays and frozen values."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

import orjson
from starlette.responses import Response

from engine.devices.readings import Reading

_PLAIN: Final = orjson.OPT_NON_STR_KEYS
_NUMPY: Final = _PLAIN | orjson.OPT_SERIALIZE_NUMPY
_PIECES: Final = 4096
"""In so many a list is written at most: while one is, no other thread computes, and an answer may be 100 MB."""

_FEW: Final = 16
"""Items of a list up to which each is looked into: one text may have as long an answer as a thousand."""


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return `content` as JSON; numpy arrays and dataclasses may stand anywhere in it.

    Raises TypeError for what JSON does not know, and RecursionError.
    """
    return Response(b"".join(_pieces(content)), status, dict(headers or {}), media_type="application/json")


async def answered(build: Callable[[], Any]) -> Response:
    """Return as JSON what `build` makes, as `answer` does, while the event loop serves others: it may be large."""
    return await asyncio.to_thread(lambda: answer(build()))


def _pieces(value: Any) -> Iterator[bytes]:
    """`value` as JSON: mappings key by key, the lists in them a few items at a time."""
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
    """How many items a list or an array has; 0 for anything else."""
    is_array = type(value).__module__ == "numpy" and getattr(value, "ndim", None)
    return len(value) if is_array or type(value) in (list, tuple) else 0


def _dumped(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=_NUMPY, default=_in_order)
    except TypeError:  # it does not even ask about an array of the other byte order
        return orjson.dumps(value, option=_PLAIN, default=_in_order)


def _in_order(value: Any) -> Any:
    """What orjson refuses of numpy: arrays that do not lie in memory as they are written, and those of no dimension."""
    import numpy as np

    if isinstance(value, np.ndarray):
        value = np.asarray(value, dtype=value.dtype.newbyteorder("="), order="C")[()]
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError
    return orjson.Fragment(orjson.dumps(value, option=_NUMPY))


def memory_fields(reading: Reading) -> dict[str, Any]:
    """Return a reading of the memory as `/admin/memory` and `/admin/events` spell it; bytes, null where unknown."""
    return {
        "process": {"rss": reading.rss, "private": reading.private, "swap": reading.swap},
        "system": {"ram_total": reading.ram_total, "ram_available": reading.ram_available},
        "devices": [asdict(device) for device in reading.devices],
    }


def retry_after(seconds: float | None) -> dict[str, str]:
    """The Retry-After header for a wait, rounded up to whole seconds; none for None."""
    return {} if seconds is None else {"Retry-After": str(max(1, -int(-seconds // 1)))}

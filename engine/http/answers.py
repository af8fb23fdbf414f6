"""JSON answers, straight from numpy arrays and frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import orjson
from starlette.responses import Response

from engine.memory import Reading


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return `content` as JSON; numpy arrays and dataclasses may stand anywhere in it."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    return Response(body, status, dict(headers or {}), media_type="application/json")


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

"""`GET /admin/events`: the events of the engine and readings, as server-sent events.

Source: the WHATWG HTML standard, "Server-sent events".
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson
from fastapi import APIRouter
from starlette.responses import StreamingResponse

from engine.events import Downloading, Event, SettingsApplied, SettingsRefused, StateChanged
from engine.http import shapes
from engine.interface import EngineInterface

_READING_SECONDS: Final = 1.0
_MOST_WAITING: Final = 1000
"""Events kept for a listener that does not read; with more it is disconnected, and its client connects again."""


def router(engine: EngineInterface) -> APIRouter:
    """Return the route in front of `engine`."""
    routes = APIRouter()

    @routes.get("/admin/events")
    async def events() -> StreamingResponse:
        return StreamingResponse(_stream(engine), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    return routes


async def _stream(engine: EngineInterface) -> AsyncIterator[bytes]:
    """Yield every event as it comes, and a reading each second, until the connection ends."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[bytes] = asyncio.Queue()
    lost = False

    def put(encoded: bytes) -> None:
        nonlocal lost
        if waiting.qsize() < _MOST_WAITING:
            waiting.put_nowait(encoded)
        else:
            lost = True

    def take(event: Event) -> None:
        encoded = _encoded(event)
        if encoded is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                loop.call_soon_threadsafe(put, encoded)

    unsubscribe = engine.events.subscribe(take)
    try:
        read_at = loop.time()
        while not lost:
            try:
                yield await asyncio.wait_for(waiting.get(), max(0.0, read_at - loop.time()))
            except TimeoutError:
                read_at = loop.time() + _READING_SECONDS
                yield _event("reading", shapes.memory(await asyncio.to_thread(engine.read_memory)))
    finally:
        unsubscribe()


def _encoded(event: Event) -> bytes | None:
    match event:
        case StateChanged(name, old, new, reason, error):
            message = error.message if error else None
            return _event("state", {"name": name, "old": old, "new": new, "reason": reason, "error": message})
        case Downloading(name, download):
            return _event("download", {"name": name, "bytes_done": download.done, "bytes_total": download.total})
        case SettingsApplied():
            return _event("settings", {"problem": None})
        case SettingsRefused(error):
            return _event("settings", {"problem": str(error)})
    return None


def _event(kind: str, fields: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps(fields))

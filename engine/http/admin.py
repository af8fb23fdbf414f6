"""The routes of status and control; only the verbs load, move or wake anything."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

from fastapi import APIRouter, Body
from starlette.responses import Response

from engine.errors import SettingsForbidden
from engine.http import config_patch, shapes
from engine.http.responses import json_response
from engine.interface import EngineInterface
from engine.settings.file import SettingsFile
from engine.state import Outcome

_VERBS: Final = ("load", "offload", "unload", "pin", "unpin", "retry")


def router(
    engine: EngineInterface, settings: SettingsFile | None, version: str, on_quit: Callable[[], None]
) -> APIRouter:
    """Return the status and control routes."""
    routes = APIRouter()
    began = time.monotonic()
    instance = uuid.uuid4().hex

    @routes.get("/health")
    async def health() -> Response:
        return json_response(
            {
                "status": "ok",
                "ready": engine.ready,
                "pid": os.getpid(),
                "version": version,
                "uptime_seconds": round(time.monotonic() - began, 3),
                "instance_id": instance,
            }
        )

    @routes.get("/ready")
    async def ready() -> Response:
        return json_response({"ready": engine.ready}, 200 if engine.ready else 503)

    @routes.get("/admin/components")
    async def components() -> Response:
        # Measuring asks the system, which may take some milliseconds.
        views = await asyncio.to_thread(engine.views, measured=True)
        idle_threshold = engine.config.hardware.idle_timeout_seconds
        return json_response(shapes.components(views, engine.clock(), idle_threshold))

    @routes.get("/admin/memory")
    async def memory() -> Response:
        return json_response(shapes.memory(await asyncio.to_thread(engine.read_memory, detailed=True)))

    @routes.post("/admin/components/{name}/{verb}")
    async def control(name: str, verb: str) -> Response:
        if verb not in _VERBS:
            detail = f"Unknown verb; valid are: {', '.join(_VERBS)}."
            return json_response({"detail": detail, "title": "Not found", "next_step": None}, 404)
        components = engine.components(name)
        if verb in ("load", "retry"):
            # Awaited without a thread of the pool: a few slow loads must not hold up the other routes.
            loads = [engine.submit_load(component, retry=verb == "retry") for component in components]
            outcomes = [await asyncio.wrap_future(load) for load in loads]
        else:
            outcomes = [await asyncio.to_thread(getattr(engine, verb), component) for component in components]
        return json_response(shapes.outcome(outcomes[0] if len(outcomes) == 1 else Outcome.of_parts(name, outcomes)))

    @routes.post("/admin/load")
    async def load_all() -> Response:
        return json_response(shapes.outcomes(await asyncio.to_thread(engine.load_all)))

    @routes.post("/admin/offload")
    async def offload_all() -> Response:
        return json_response(shapes.outcomes(await asyncio.to_thread(engine.offload_all)))

    @routes.post("/admin/unload")
    async def unload_all() -> Response:
        return json_response(shapes.outcomes(await asyncio.to_thread(engine.unload_all)))

    @routes.post("/admin/quit")
    async def quit_() -> Response:
        # A moment later, so that this answer is sent before the server closes.
        asyncio.get_running_loop().call_later(0.1, on_quit)
        return json_response({"result": "done"})

    @routes.get("/admin/config")
    async def config() -> Response:
        return json_response(shapes.settings(engine.config, settings))

    @routes.patch("/admin/config")
    async def patch_config(body: dict[str, Any] = Body()) -> Response:  # noqa: B008 - FastAPI reads the default
        if settings is None:
            raise SettingsForbidden("This engine runs without a settings file.")
        await asyncio.to_thread(settings.edit, config_patch.changes(body, engine.config))
        return json_response(shapes.settings(engine.config, settings))

    return routes

"""Status and control: nothing here loads, wakes or resets a clock, except the verbs that say so."""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from fastapi import APIRouter, Body
from starlette.responses import Response

from engine.engine import Engine
from engine.errors import SettingsError, SettingsForbidden
from engine.http.responses import answer, memory_fields
from engine.settings.file import Key, SettingsFile
from engine.settings.naming import settings_key
from engine.settings.schema import LADDER_KEYS
from engine.state import EncoderView, Outcome

_VERBS: Final = ("load", "offload", "unload", "pin", "unpin", "retry")


def router(engine: Engine, settings: SettingsFile | None, version: str, on_quit: Callable[[], None]) -> APIRouter:
    """Return the status and control routes."""
    routes = APIRouter()
    began = time.monotonic()
    instance = uuid.uuid4().hex

    @routes.get("/health")
    async def health() -> Response:
        return answer(
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
        return answer({"ready": engine.ready}, 200 if engine.ready else 503)

    @routes.get("/admin/components")
    async def components() -> Response:
        # Measuring asks the system, which may take some milliseconds.
        return answer(_components(engine, await asyncio.to_thread(engine.views, measured=True)))

    @routes.get("/admin/memory")
    async def memory() -> Response:
        return answer(memory_fields(await asyncio.to_thread(engine.read_memory, detailed=True)))

    @routes.post("/admin/components/{name}/{verb}")
    async def control(name: str, verb: str) -> Response:
        if verb not in _VERBS:
            detail = f"Unknown verb; valid are: {', '.join(_VERBS)}."
            return answer({"detail": detail, "title": "Not found", "next_step": None}, 404)
        components = engine.components(name)
        if verb in ("load", "retry"):
            # Waited for here and on no thread of a pool: a few slow loads must not hold up the other routes.
            loads = [engine.submit_load(component, retry=verb == "retry") for component in components]
            outcomes = [await asyncio.wrap_future(load) for load in loads]
        else:
            outcomes = [await asyncio.to_thread(getattr(engine, verb), component) for component in components]
        return answer(_outcome(outcomes[0] if len(outcomes) == 1 else Outcome.of_parts(name, outcomes)))

    @routes.post("/admin/load")
    async def load_all() -> Response:
        return answer({"results": [_outcome(o) for o in await asyncio.to_thread(engine.load_all)]})

    @routes.post("/admin/offload")
    async def offload_all() -> Response:
        return answer({"results": [_outcome(o) for o in await asyncio.to_thread(engine.offload_all)]})

    @routes.post("/admin/unload")
    async def unload_all() -> Response:
        return answer({"results": [_outcome(o) for o in await asyncio.to_thread(engine.unload_all)]})

    @routes.post("/admin/quit")
    async def quit_() -> Response:
        # A moment later, so that this answer is on its way before the server closes.
        asyncio.get_running_loop().call_later(0.1, on_quit)
        return answer({"result": "done"})

    @routes.get("/admin/config")
    async def config() -> Response:
        return answer(_config(engine, settings))

    @routes.patch("/admin/config")
    async def patch_config(body: dict[str, Any] = Body()) -> Response:  # noqa: B008 - FastAPI reads the default
        if settings is None:
            raise SettingsForbidden("This engine runs without a settings file.")
        _refuse_unwritable(body)
        await asyncio.to_thread(settings.edit, _changes(body, engine))
        return answer(_config(engine, settings))

    return routes


def _components(engine: Engine, views: Sequence[EncoderView]) -> dict[str, Any]:
    now = engine.clock()
    used = [view.last_used for view in views if view.last_used is not None]
    return {
        "components": [_component(view, now) for view in views],
        "count": len(views),
        "last_activity_s_ago": round(now - max(used), 3) if used else None,
        "idle_threshold_s": engine.config.hardware.idle_timeout_seconds,
    }


def _component(view: EncoderView, now: float) -> dict[str, Any]:
    deadline = view.next_deadline(now)
    error = view.error
    return {
        "name": view.name,
        "encoder": view.name.removesuffix(f".{view.part}") if view.part else view.name,
        "part": view.part,
        "kind": view.kind,
        "model": view.model,
        "aliases": view.aliases,
        "revision": view.revision,
        "state": view.state,
        "status": view.status,
        "loaded": view.awake,
        "device": view.device,
        "bytes_on_device": view.bytes_on_device,
        "bytes_in_ram": view.bytes_in_ram,
        "bytes_total": view.bytes_total,
        "shared_with": view.shared_with,
        "download": view.download and {"bytes_done": view.download.done, "bytes_total": view.download.total},
        "metadata": view.metadata,
        "last_used_by": view.last_used_by,
        "in_flight": view.in_flight,
        "queued": view.queued,
        "last_used_seconds_ago": None if view.last_used is None else round(now - view.last_used, 3),
        "steps_down_in_seconds": None if deadline is None else round(max(0.0, deadline - now), 3),
        "keep_alive_seconds": view.keep_alive_seconds,
        "pinned": view.pinned,
        "import_seconds": view.import_seconds,
        "load_seconds": view.load_seconds,
        "first_encode_seconds": view.first_encode_seconds,
        "reload_seconds": view.reload_seconds,
        "offload_seconds": view.offload_seconds,
        "stepped_down_because": view.stepped_down_because,
        "loads": view.loads,
        "error": error
        and {
            "title": error.title,
            "message": error.message,
            "next_step": error.next_step,
            "retry_in_seconds": None if error.retry_at is None else round(max(0.0, error.retry_at - now), 3),
        },
        "note": view.note,
        "ignored_options": view.ignored_options,
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.name,
        "result": outcome.result,
        "state": outcome.state,
        "freed_bytes": outcome.freed_bytes,
        "seconds": round(outcome.seconds, 4),
        "reason": outcome.reason,
    }


def _config(engine: Engine, settings: SettingsFile | None) -> dict[str, Any]:
    problem = settings.problem if settings else None
    return {
        **engine.config.as_mapping(),
        "file": str(settings.path) if settings else None,
        "problem": str(problem) if problem else None,
    }


def _refuse_unwritable(body: Mapping[str, Any]) -> None:
    """Raise SettingsError for lone surrogates, which neither the file nor an answer that names them can hold."""
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise SettingsError("The body holds text that cannot be written as UTF-8.") from error


def _changes(body: Mapping[str, Any], engine: Engine) -> dict[Key, Any]:
    """Flatten the body of a PATCH; raises SettingsForbidden for what only a hand may edit."""
    changes: dict[Key, Any] = {}
    for section, table in body.items():
        if section not in ("hardware", "encoders"):
            raise SettingsForbidden(
                f"[{section}] cannot be changed here; [hardware] and [encoders.NAME] can.",
                next_step="Edit the settings file by hand.",
            )
        if not isinstance(table, Mapping):
            raise SettingsError(f"{section}: must be an object.")
        if section == "hardware":
            changes |= {("hardware", key): value for key, value in table.items()}
            continue
        for name, values in table.items():
            changes |= _encoder_changes(name, values, engine)
    return changes


def _encoder_changes(name: str, values: Any, engine: Engine) -> dict[Key, Any]:
    where = settings_key(engine.config, name)
    if not isinstance(values, Mapping):
        raise SettingsError(f"encoders.{name}: must be an object.")
    for key in values:
        if key not in LADDER_KEYS:
            raise SettingsForbidden(
                f"encoders.{name}.{key} cannot be changed here; {', '.join(LADDER_KEYS)} can.",
                next_step="Edit the settings file by hand.",
            )
    return {(*where, key): value for key, value in values.items()}

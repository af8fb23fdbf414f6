"""The ASGI application: routes of every dialect, and each path's own way to say that something is wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from engine.engine import Engine
from engine.errors import PilotlightError
from engine.http import admin, events
from engine.http.dialects import native, openai
from engine.http.security import Guard
from engine.settings.file import SettingsFile

_log = logging.getLogger(__name__)


def create_app(
    engine: Engine,
    *,
    host: str,
    token: str,
    version: str,
    settings: SettingsFile | None = None,
    on_quit: Callable[[], None] = lambda: None,
) -> ASGIApp:
    """Return the application; `host` is where it listens, `token` opens the control routes."""
    app = FastAPI(title="Pilotlight", version=version, docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    app.include_router(openai.router(engine))
    app.include_router(native.router(engine))
    app.include_router(admin.router(engine, settings, version, on_quit))
    app.include_router(events.router(engine))
    app.exception_handler(PilotlightError)(_pilotlight_error)
    app.exception_handler(RequestValidationError)(_validation_error)
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(Exception)(_unexpected_error)
    return Guard(app, host=host, token=token, refuse=refuse)


def refuse(path: str, status: int, message: str) -> Response:
    """Answer in the shape of the dialect that `path` belongs to."""
    if _speaks_openai(path):
        kind = "invalid_request_error" if status < 500 else "api_error"
        return openai.failure(status, message, kind)
    return native.failure(status, message, HTTPStatus(status).phrase)


def _speaks_openai(path: str) -> bool:
    return path.startswith(openai.PATHS)


async def _pilotlight_error(request: Request, error: PilotlightError) -> Response:
    if _speaks_openai(request.url.path):
        return openai.error_answer(error)
    return native.error_answer(error)


async def _validation_error(request: Request, error: RequestValidationError) -> Response:
    """Name the field and the rule; the input itself is never echoed."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return refuse(request.url.path, 400, f"The body is not valid JSON: {first['ctx']['error']}.")
    field = next((part for part in first["loc"][1:] if isinstance(part, str)), None)
    if field is None and first["loc"] == ("body",):
        message = "The body must be a JSON object, sent with Content-Type: application/json."
    elif field == "input":
        message = openai.INPUT_RULE
    else:
        message = f"{field or 'The body'}: {first['msg']}."
    if _speaks_openai(request.url.path):
        return openai.failure(400, message, param=field)
    return native.failure(422, message, "Input not accepted")


async def _http_error(request: Request, error: HTTPException) -> Response:
    detail = str(error.detail)
    if error.status_code == 400 and "parsing the body" in detail:
        detail = "The body cannot be read as JSON: it is not UTF-8, nested too deep, or holds too long a number."
    response = refuse(request.url.path, error.status_code, detail)
    response.headers.update(error.headers or {})
    return response


async def _unexpected_error(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return refuse(request.url.path, 500, f"{type(error).__name__}; the log has the details.")

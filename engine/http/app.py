"""The ASGI application: the routes of every dialect, and the shape of an error on each path."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from engine.errors import PilotlightError
from engine.http import admin, events
from engine.http.dialects import openai
from engine.http.dialects.dialect import Dialect
from engine.http.dialects.native import dialect as native
from engine.http.security import Guard
from engine.http.truncation import TruncationHeaders
from engine.interface import EngineInterface
from engine.settings.file import SettingsFile

_log = logging.getLogger(__name__)

DIALECTS: Final[tuple[Dialect, ...]] = (openai.DIALECT, native.DIALECT)
"""Every dialect that the endpoint speaks; the last one answers for the paths that no other claims."""


def create_app(
    engine: EngineInterface,
    *,
    host: str,
    token: str,
    version: str,
    settings: SettingsFile | None = None,
    on_quit: Callable[[], None] = lambda: None,
) -> ASGIApp:
    """Return the application; `host` is the address it listens on, `token` opens the control routes."""
    app = FastAPI(title="Pilotlight", version=version, docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    for dialect in DIALECTS:
        app.include_router(dialect.router(engine))
    app.include_router(admin.router(engine, settings, version, on_quit))
    app.include_router(events.router(engine))
    app.exception_handler(PilotlightError)(_pilotlight_error)
    app.exception_handler(RequestValidationError)(_validation_error)
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(Exception)(_unexpected_error)
    return Guard(TruncationHeaders(app), host=host, token=token, refuse=_refuse)


def dialect_of(path: str) -> Dialect:
    """Return the dialect that `path` speaks."""
    return next((dialect for dialect in DIALECTS if dialect.claims(path)), DIALECTS[-1])


def _refuse(path: str, status: int, message: str) -> Response:
    return dialect_of(path).refusal(status, message)


async def _pilotlight_error(request: Request, error: PilotlightError) -> Response:
    return dialect_of(request.url.path).error(error)


async def _validation_error(request: Request, error: RequestValidationError) -> Response:
    """Name the field and the rule; the input itself is never echoed."""
    dialect = dialect_of(request.url.path)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return dialect.refusal(400, f"The body is not valid JSON: {first['ctx']['error']}.")
    field = next((part for part in first["loc"][1:] if isinstance(part, str)), None)
    if field is None and first["loc"] == ("body",):
        message = "The body must be a JSON object, sent with Content-Type: application/json."
    else:
        message = dialect.rules.get(field or "", f"{field or 'The body'}: {first['msg']}.")
    return dialect.refusal(dialect.bad_body, message, field)


async def _http_error(request: Request, error: HTTPException) -> Response:
    detail = str(error.detail)
    if error.status_code == 400 and "parsing the body" in detail:
        detail = "The body cannot be read as JSON: it is not UTF-8, nested too deep, or holds too long a number."
    response = _refuse(request.url.path, error.status_code, detail)
    response.headers.update(error.headers or {})
    return response


async def _unexpected_error(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _refuse(request.url.path, 500, f"{type(error).__name__}; the log has the details.")

"""`POST /encode/plugin`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field, StrictStr
from starlette.responses import Response

from engine.engine import Engine
from engine.errors import EncoderError
from engine.http import dispatch as running
from engine.http.dialects.native.fields import Body, shown
from engine.http.responses import answered
from engine.operations.plugin import Call


class PluginRequest(Body):
    """One of a plug-in's operations, and its arguments by name."""

    operation: StrictStr
    arguments: dict[str, Any] = Field(default_factory=dict)


def router(engine: Engine) -> APIRouter:
    """Return the route in front of `engine`."""
    routes = APIRouter()

    @routes.post("/encode/plugin")
    async def plugin(body: PluginRequest, request: Request) -> Response:
        found = await running.run(engine, Call(body.operation, body.arguments), body, request)
        try:
            fields = {"result": found.value}
            return await answered(lambda: shown(fields, body.model, found.encoder, found.revision))
        except (TypeError, RecursionError) as error:
            raise EncoderError(
                f"What {body.operation} of {found.encoder} returns cannot be written as JSON: {error}.",
                title="Plug-in failed",
                next_step="It must return texts, numbers, lists, mappings or numpy arrays.",
            ) from error

    return routes

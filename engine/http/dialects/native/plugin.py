"""`POST /encode/plugin`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field, StrictStr
from starlette.responses import Response

from engine.errors import EncoderError
from engine.http.dialects.native.fields import Body, with_encoder
from engine.http.dispatch import dispatch
from engine.http.responses import json_response_off_loop
from engine.interface import EngineInterface
from engine.operations.plugin import Call


class PluginRequest(Body):
    """The name of a plug-in's operation, and its arguments by name."""

    operation: StrictStr
    arguments: dict[str, Any] = Field(default_factory=dict)


def router(engine: EngineInterface) -> APIRouter:
    """Return the route in front of `engine`."""
    routes = APIRouter()

    @routes.post("/encode/plugin")
    async def plugin(body: PluginRequest, request: Request) -> Response:
        answer = await dispatch(engine, Call(body.operation, body.arguments), body, request)
        try:
            fields = {"result": answer.value}
            return await json_response_off_loop(lambda: with_encoder(fields, body, answer))
        except (TypeError, RecursionError) as error:
            raise EncoderError(
                f"What {body.operation} of {answer.encoder} returns cannot be written as JSON: {error}.",
                title="Plug-in failed",
                next_step="It must return texts, numbers, lists, mappings or numpy arrays.",
            ) from error

    return routes

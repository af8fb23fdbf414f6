"""`POST /encode/dense`."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import StrictInt
from starlette.responses import Response

from engine.engine import Engine
from engine.http import dispatch as running
from engine.http.dialects.native.fields import Body, Texts, shown
from engine.http.responses import answered
from engine.operations.dense import Embed


class DenseRequest(Body):
    """Texts, and what they are: a `query` or a `passage`."""

    texts: Texts
    task: Literal["query", "passage"] | None = None
    dimensions: StrictInt | None = None


def router(engine: Engine) -> APIRouter:
    """Return the route in front of `engine`."""
    routes = APIRouter()

    @routes.post("/encode/dense")
    async def dense(body: DenseRequest, request: Request) -> Response:
        operation = Embed(body.texts, task=body.task, dimensions=body.dimensions)
        found = await running.run(engine, operation, body, request)
        vectors = found.value.vectors
        fields = {"vectors": vectors, "dim": vectors.shape[1] or None}
        return await answered(lambda: shown(fields, body.model, found.encoder, found.revision))

    return routes

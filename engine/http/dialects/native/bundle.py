"""`POST /encode/bundle`."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import StrictInt, StrictStr
from starlette.responses import Response

from engine.http.keep_alive import KeepAlive
from engine.http.responses import json_response
from engine.http.truncation import Truncation, note_cut
from engine.interface import EngineInterface
from engine.operations.bundle import EncodeBundle


class BundleRequest(KeepAlive, Truncation):
    """One text, what it is for, the tokens in its sparse vector, and the encoders other than the defaults."""

    text: StrictStr
    task: Literal["query", "passage"] | None = "query"
    top_k: StrictInt = 128
    models: dict[str, StrictStr | None] | None = None


def router(engine: EngineInterface) -> APIRouter:
    """Return the route in front of `engine`."""
    routes = APIRouter()

    @routes.post("/encode/bundle")
    async def bundle(body: BundleRequest, request: Request) -> Response:
        operation = EncodeBundle(body.text, body.task, body.top_k, body.models or {}, body.may_cut)
        used_by = request.headers.get("user-agent")
        result = await asyncio.wrap_future(engine.submit_bundle(operation, used_by, body.keep_alive_seconds))
        note_cut(request, result.cut)
        models = {part: operation.models.get(part) or encoder for part, encoder in result.encoders.items()}
        first = next(iter(models))
        fields = {
            "dense": result.dense,
            "dim": None if result.dense is None else len(result.dense),
            "splade": None if result.sparse is None else result.sparse.by_token(),
            "sema": result.axes,
            "axes": None if result.axes is None else result.axis_names,
            "truncated": result.cut.inputs,
            "models": models,
            "revisions": result.revisions,
            "model": models[first],
            "revision": result.revisions[first],
        }
        return json_response(fields)

    return routes

"""`POST /encode/bundle`."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import StrictInt, StrictStr
from starlette.responses import Response

from engine.engine import Engine
from engine.http.keep_alive import KeepAlive
from engine.http.responses import answer
from engine.operations.bundle import EncodeBundle


class BundleRequest(KeepAlive):
    """A text, what it is, how many tokens its sparse vector keeps, and where it matters the encoder of each part."""

    text: StrictStr
    task: Literal["query", "passage"] | None = "query"
    top_k: StrictInt = 128
    models: dict[str, StrictStr | None] | None = None


def router(engine: Engine) -> APIRouter:
    """Return the route in front of `engine`."""
    routes = APIRouter()

    @routes.post("/encode/bundle")
    async def bundle(body: BundleRequest, request: Request) -> Response:
        asked = EncodeBundle(body.text, body.task, body.top_k, body.models or {})
        used_by = request.headers.get("user-agent")
        found = await asyncio.wrap_future(engine.submit_bundle(asked, used_by, body.keep_alive_seconds))
        models = {part: asked.models.get(part) or encoder for part, encoder in found.encoders.items()}
        first = next(iter(models))
        fields = {
            "dense": found.dense,
            "dim": None if found.dense is None else len(found.dense),
            "splade": None if found.sparse is None else found.sparse.by_token(),
            "sema": found.axes,
            "axes": None if found.axes is None else found.axis_names,
            "models": models,
            "revisions": found.revisions,
            "model": models[first],
            "revision": found.revisions[first],
        }
        return answer(fields)

    return routes

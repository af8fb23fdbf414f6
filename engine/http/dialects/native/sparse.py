"""`POST /encode/sparse`, also known as `/encode/splade`."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import StrictInt
from starlette.responses import Response

from engine.engine import Engine
from engine.http import dispatch as running
from engine.http.dialects.native.fields import Body, Texts, shown
from engine.http.responses import answered
from engine.operations.sparse import EncodeSparse


class SparseRequest(Body):
    """Texts, what they are, and how many tokens are kept of each."""

    texts: Texts
    task: Literal["query", "passage"] | None = None
    top_k: StrictInt = 128


def router(engine: Engine) -> APIRouter:
    """Return the route in front of `engine`."""
    routes = APIRouter()

    @routes.post("/encode/sparse")
    @routes.post("/encode/splade", include_in_schema=False)
    async def sparse(body: SparseRequest, request: Request) -> Response:
        operation = EncodeSparse(body.texts, task=body.task, top_k=body.top_k)
        found = await running.run(engine, operation, body, request)

        def content() -> dict[str, Any]:
            vectors = [vector.by_token() for vector in found.value.vectors]
            return shown({"sparse": vectors}, body.model, found.encoder, found.revision)

        return await answered(content)

    return routes

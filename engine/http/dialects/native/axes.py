"""`POST /encode/axes`, and `/encode/sema`, which means the same."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import StrictInt
from starlette.responses import Response

from engine.engine import Engine
from engine.http import dispatch as running
from engine.http.dialects.native.fields import Body, Texts, shown
from engine.http.responses import answered
from engine.operations.axes import EncodeAxes, Projection


class AxesRequest(Body):
    """Texts and what they are, and how many axes of each text's signature are wanted, if any."""

    texts: Texts
    task: Literal["query", "passage"] | None = None
    top_k: StrictInt | None = None


def router(engine: Engine) -> APIRouter:
    """Return the routes in front of `engine`."""
    routes = APIRouter()

    @routes.post("/encode/axes")
    @routes.post("/encode/sema", include_in_schema=False)
    async def axes(body: AxesRequest, request: Request) -> Response:
        operation = EncodeAxes(body.texts, task=body.task, top_k=body.top_k)
        found = await running.run(engine, operation, body, request)

        def content() -> dict[str, Any]:
            return shown(_shape(found.value, body.top_k), body.model, found.encoder, found.revision)

        return await answered(content)

    return routes


def _shape(projection: Projection, top_k: int | None) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "vectors": projection.vectors,
        "axes": projection.axes,
        "dim": len(projection.axes) or None,
    }
    if top_k is not None:
        fields["signatures"] = [
            [{"axis": name, "weight": weight} for name, weight in signature]
            for signature in projection.signatures(top_k)
        ]
    return fields

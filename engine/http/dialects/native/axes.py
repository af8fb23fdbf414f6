"""`POST /encode/axes`, also at `/encode/sema`."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import StrictInt
from starlette.responses import Response

from engine.http.dialects.native.fields import TextBody, Texts, with_encoder
from engine.http.dispatch import dispatch
from engine.http.responses import json_response_off_loop
from engine.interface import EngineInterface
from engine.operations.axes import EncodeAxes, Projection


class AxesRequest(TextBody):
    """Texts, what they are for, and the number of axes in the signature of each, if wanted."""

    texts: Texts
    task: Literal["query", "passage"] | None = None
    top_k: StrictInt | None = None


def router(engine: EngineInterface) -> APIRouter:
    """Return the routes in front of `engine`."""
    routes = APIRouter()

    @routes.post("/encode/axes")
    @routes.post("/encode/sema", include_in_schema=False)
    async def axes(body: AxesRequest, request: Request) -> Response:
        operation = EncodeAxes(body.texts, task=body.task, top_k=body.top_k, truncate=body.may_cut)
        answer = await dispatch(engine, operation, body, request)

        def content() -> dict[str, Any]:
            return with_encoder(_shape(answer.value, body.top_k), body, answer)

        return await json_response_off_loop(content)

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

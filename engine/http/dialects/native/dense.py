"""`POST /encode/dense`."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import StrictBool, StrictInt
from starlette.responses import Response

from engine.http.dialects.native.fields import TextBody, Texts, with_encoder
from engine.http.dispatch import dispatch
from engine.http.responses import json_response_off_loop
from engine.interface import EngineInterface
from engine.operations.dense import Embed


class DenseRequest(TextBody):
    """Texts, what they are for (`query` or `passage`), and the form of the vectors; null is as the model gives them."""

    texts: Texts
    task: Literal["query", "passage"] | None = None
    dimensions: StrictInt | None = None
    normalize: StrictBool | None = None


def router(engine: EngineInterface) -> APIRouter:
    """Return the route in front of `engine`."""
    routes = APIRouter()

    @routes.post("/encode/dense")
    async def dense(body: DenseRequest, request: Request) -> Response:
        operation = Embed(
            body.texts,
            task=body.task,
            dimensions=body.dimensions,
            truncate=body.may_cut,
            normalize=body.normalize,
        )
        answer = await dispatch(engine, operation, body, request)
        vectors = answer.value.vectors
        fields = {"vectors": vectors, "dim": vectors.shape[1] or None}
        return await json_response_off_loop(lambda: with_encoder(fields, body, answer))

    return routes

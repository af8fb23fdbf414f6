"""`POST /encode/sparse`, also at `/encode/splade`."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import StrictInt
from starlette.responses import Response

from engine.http.dialects.native.fields import TextBody, Texts, with_encoder
from engine.http.dispatch import dispatch
from engine.http.responses import json_response_off_loop
from engine.interface import EngineInterface
from engine.operations.sparse import EncodeSparse


class SparseRequest(TextBody):
    """Texts, what they are for, and the number of tokens to keep of each."""

    texts: Texts
    task: Literal["query", "passage"] | None = None
    top_k: StrictInt = 128


def router(engine: EngineInterface) -> APIRouter:
    """Return the route in front of `engine`."""
    routes = APIRouter()

    @routes.post("/encode/sparse")
    @routes.post("/encode/splade", include_in_schema=False)
    async def sparse(body: SparseRequest, request: Request) -> Response:
        operation = EncodeSparse(body.texts, task=body.task, top_k=body.top_k, truncate=body.may_cut)
        answer = await dispatch(engine, operation, body, request)

        def content() -> dict[str, Any]:
            vectors = [vector.by_token() for vector in answer.value.vectors]
            return with_encoder({"sparse": vectors}, body, answer)

        return await json_response_off_loop(content)

    return routes

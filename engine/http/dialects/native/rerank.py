"""`POST /encode/rerank` and `POST /encode/splice`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import PlainValidator, StrictFloat, StrictInt, StrictStr
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from engine.http.dialects.native.fields import TextBody, Texts, with_encoder
from engine.http.dispatch import dispatch
from engine.http.responses import json_response
from engine.interface import EngineInterface
from engine.operations.rerank import Score, Splice


def _groups(value: object) -> list[list[str]]:
    if isinstance(value, list) and all(isinstance(group, list) and {*map(type, group)} <= {str} for group in value):
        return value
    raise PydanticCustomError("groups", "must be a list of lists of texts")


class RerankRequest(TextBody):
    """A query, and the texts to score by their relevance to it."""

    query: StrictStr
    texts: Texts


class SpliceRequest(TextBody):
    """A query, and groups of fragments; the relevant ones are kept, at least `min_kept` of each group."""

    query: StrictStr
    fragments: Annotated[list[list[str]], PlainValidator(_groups, json_schema_input_type=list[list[str]])]
    threshold: StrictFloat = 0.5
    min_kept: StrictInt = 2


def router(engine: EngineInterface) -> APIRouter:
    """Return the routes in front of `engine`."""
    routes = APIRouter()

    @routes.post("/encode/rerank")
    async def rerank(body: RerankRequest, request: Request) -> Response:
        operation = Score(body.query, body.texts, body.may_cut, field="texts")
        answer = await dispatch(engine, operation, body, request)
        fields = {"scores": answer.value.scores}
        return json_response(with_encoder(fields, body, answer))

    @routes.post("/encode/splice")
    async def splice(body: SpliceRequest, request: Request) -> Response:
        operation = Splice(body.query, body.fragments, body.threshold, body.min_kept, body.may_cut)
        answer = await dispatch(engine, operation, body, request)
        fields = {"kept": answer.value.kept, "scores": answer.value.scores}
        return json_response(with_encoder(fields, body, answer))

    return routes

"""`POST /encode/tag`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from engine.http.dialects.native.fields import Body, Texts, with_encoder
from engine.http.dispatch import dispatch
from engine.http.responses import json_response_off_loop
from engine.interface import EngineInterface
from engine.operations.tag import Tag, Tagged, Token


class TagRequest(Body):
    """Texts to split into tokens and entities."""

    texts: Texts


def router(engine: EngineInterface) -> APIRouter:
    """Return the route in front of `engine`."""
    routes = APIRouter()

    @routes.post("/encode/tag")
    async def tag(body: TagRequest, request: Request) -> Response:
        answer = await dispatch(engine, Tag(body.texts), body, request)

        def content() -> dict[str, Any]:
            return with_encoder({"docs": list(map(_document, answer.value))}, body, answer)

        return await json_response_off_loop(content)

    return routes


def _document(tagged: Tagged) -> dict[str, Any]:
    return {"tokens": [_token(token) for token in tagged.tokens], "entities": tagged.entities}


def _token(token: Token) -> dict[str, Any]:
    fields = {"text": token.text, "start": token.start, "end": token.end, "pos": token.pos, "tag": token.tag}
    return fields if token.lemma is None else {**fields, "lemma": token.lemma}

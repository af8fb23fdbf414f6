"""`POST /encode/tag`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from engine.engine import Engine
from engine.http import dispatch as running
from engine.http.dialects.native.fields import Body, Texts, shown
from engine.http.responses import answered
from engine.operations.tag import Tag, Tagged, Token


class TagRequest(Body):
    """Texts to take apart."""

    texts: Texts


def router(engine: Engine) -> APIRouter:
    """Return the route in front of `engine`."""
    routes = APIRouter()

    @routes.post("/encode/tag")
    async def tag(body: TagRequest, request: Request) -> Response:
        found = await running.run(engine, Tag(body.texts), body, request)

        def content() -> dict[str, Any]:
            return shown({"docs": list(map(_document, found.value))}, body.model, found.encoder, found.revision)

        return await answered(content)

    return routes


def _document(tagged: Tagged) -> dict[str, Any]:
    return {"tokens": [_token(one) for one in tagged.tokens], "entities": tagged.entities}


def _token(token: Token) -> dict[str, Any]:
    fields = {"text": token.text, "start": token.start, "end": token.end, "pos": token.pos, "tag": token.tag}
    return fields if token.lemma is None else {**fields, "lemma": token.lemma}

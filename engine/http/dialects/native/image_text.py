"""`POST /encode/image` and `POST /encode/image_text`: the two towers of one model."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from json import JSONDecodeError
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from engine.http.dialects.native.fields import Body, TextBody, Texts, with_encoder
from engine.http.dispatch import dispatch
from engine.http.images import Images, form_fields
from engine.http.responses import json_response_off_loop
from engine.interface import EngineInterface
from engine.operations.dense import Encoding
from engine.operations.image_text import EmbedForImages, EncodeImages
from engine.operations.operation import Answer, Operation

_FORM: Final = "multipart/form-data"
_JSON: Final = re.compile(r"application/([^/]+\+)?json")
_RULE: Final = f"must be a JSON object, sent with Content-Type: application/json, or a form, sent with {_FORM}"


class ImageRequest(Body):
    """Images as data URIs or base64."""

    images: Images


class TextRequest(TextBody):
    """Texts for the text tower."""

    texts: Texts


def router(engine: EngineInterface) -> APIRouter:
    """Return the routes in front of `engine`."""
    routes = APIRouter()

    @routes.post("/encode/image", openapi_extra={"requestBody": {"content": _schemas(), "required": True}})
    async def image(request: Request) -> Response:
        body, operation = await asyncio.to_thread(_operation, await _fields(request))
        return await _vectors(body, await dispatch(engine, operation, body, request))

    @routes.post("/encode/image_text")
    async def image_text(body: TextRequest, request: Request) -> Response:
        operation: Operation[Encoding] = EmbedForImages(body.texts, truncate=body.may_cut)
        return await _vectors(body, await dispatch(engine, operation, body, request))

    return routes


async def _vectors(body: Body, answer: Answer[Encoding]) -> Response:
    vectors = answer.value.vectors
    fields = {"vectors": vectors, "dim": vectors.shape[1] or None}
    return await json_response_off_loop(lambda: with_encoder(fields, body, answer))


def _operation(fields: Any) -> tuple[ImageRequest, EncodeImages]:
    try:
        body = ImageRequest.model_validate(fields)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_input=False)
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in mistakes]) from error
    return body, EncodeImages(body.images)


async def _fields(request: Request) -> Any:
    """Return the fields of a form or of a JSON body; raise as FastAPI does for a bad body."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == _FORM:
        return await form_fields(request)
    if not _JSON.fullmatch(kind):
        raise RequestValidationError([{"type": "missing", "loc": ("body", 0), "msg": _RULE}])
    try:
        return await request.json()
    except JSONDecodeError as error:
        mistake = {"type": "json_invalid", "loc": ("body", error.pos), "msg": "", "ctx": {"error": error.msg}}
        raise RequestValidationError([mistake]) from error
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "There was an error parsing the body") from error


def _schemas() -> Mapping[str, Any]:
    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    form = {"type": "object", "properties": {"images": files, "model": {"type": "string"}}}
    return {
        "application/json": {"schema": ImageRequest.model_json_schema()},
        _FORM: {"schema": form},
    }

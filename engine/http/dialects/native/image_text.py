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

from engine.engine import Engine
from engine.http import dispatch as running
from engine.http.dialects.native.fields import Body, Texts, shown
from engine.http.images import Images, form_fields
from engine.http.responses import answered
from engine.operations.dense import Encoding
from engine.operations.image_text import EmbedForImages, EncodeImages
from engine.operations.operation import Answer, Operation

_FORM: Final = "multipart/form-data"
_JSON: Final = re.compile(r"application/([^/]+\+)?json")
_RULE: Final = f"must be a JSON object, sent with Content-Type: application/json, or a form, sent with {_FORM}"


class ImageRequest(Body):
    """Images as data URIs or base64."""

    images: Images


class TextRequest(Body):
    """Texts for the text tower."""

    texts: Texts


def router(engine: Engine) -> APIRouter:
    """Return the routes in front of `engine`."""
    routes = APIRouter()

    @routes.post("/encode/image", openapi_extra={"requestBody": {"content": _described(), "required": True}})
    async def image(request: Request) -> Response:
        body, operation = await asyncio.to_thread(_asked, await _fields(request))
        return await _answer(body, await running.run(engine, operation, body, request))

    @routes.post("/encode/image_text")
    async def image_text(body: TextRequest, request: Request) -> Response:
        operation: Operation[Encoding] = EmbedForImages(body.texts)
        return await _answer(body, await running.run(engine, operation, body, request))

    return routes


async def _answer(body: Body, found: Answer[Encoding]) -> Response:
    vectors = found.value.vectors
    fields = {"vectors": vectors, "dim": vectors.shape[1] or None}
    return await answered(lambda: shown(fields, body.model, found.encoder, found.revision))


def _asked(fields: Any) -> tuple[ImageRequest, EncodeImages]:
    try:
        body = ImageRequest.model_validate(fields)
    except ValidationError as error:
        told = error.errors(include_url=False, include_input=False)
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in told]) from error
    return body, EncodeImages(body.images)


async def _fields(request: Request) -> Any:
    """The body as plain data, whichever way it was sent; refused as FastAPI refuses a body."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == _FORM:
        return await form_fields(request)
    if not _JSON.fullmatch(kind):
        raise RequestValidationError([{"type": "missing", "loc": ("body", 0), "msg": _RULE}])
    try:
        return await request.json()
    except JSONDecodeError as error:
        told = {"type": "json_invalid", "loc": ("body", error.pos), "msg": "", "ctx": {"error": error.msg}}
        raise RequestValidationError([told]) from error
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "There was an error parsing the body") from error


def _described() -> Mapping[str, Any]:
    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    form = {"type": "object", "properties": {"images": files, "model": {"type": "string"}}}
    return {
        "application/json": {"schema": ImageRequest.model_json_schema()},
        _FORM: {"schema": form},
    }

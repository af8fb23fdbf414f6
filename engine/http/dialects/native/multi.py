"""`POST /encode/multi`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field, PlainValidator
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from engine.http.dialects.native.fields import TextBody, Texts, with_encoder
from engine.http.dispatch import dispatch
from engine.http.responses import json_response_off_loop
from engine.interface import EngineInterface
from engine.operations.multi import FORMS, EncodeMulti, Form, MultiEncoding


def _forms(value: object) -> tuple[Form, ...]:
    # The length is looked at first: a million wrong names are one error.
    if isinstance(value, list) and 0 < len(value) <= len(FORMS) and all(form in FORMS for form in value):
        return tuple(value)
    raise PydanticCustomError("forms", "must be a list of some of {forms}", {"forms": ", ".join(FORMS)})


Forms = Annotated[tuple[Form, ...], PlainValidator(_forms, json_schema_input_type=list[Form])]


class MultiRequest(TextBody):
    """Texts, and the forms to return of each."""

    texts: Texts
    forms: Annotated[Forms, Field(alias="return")] = FORMS


def router(engine: EngineInterface) -> APIRouter:
    """Return the route in front of `engine`."""
    routes = APIRouter()

    @routes.post("/encode/multi")
    async def multi(body: MultiRequest, request: Request) -> Response:
        operation = EncodeMulti(body.texts, want=body.forms, truncate=body.may_cut)
        answer = await dispatch(engine, operation, body, request)
        return await json_response_off_loop(lambda: with_encoder(_shape(answer.value), body, answer))

    return routes


def _shape(encoding: MultiEncoding) -> dict[str, Any]:
    """Return the forms that were asked for; `dim` is the length of the vectors, null without any."""
    forms: dict[str, Any] = {}
    rows = [*(encoding.colbert or ())]
    if encoding.dense is not None:
        forms["dense"] = encoding.dense
        rows = [encoding.dense]
    if encoding.sparse is not None:
        forms["sparse"] = [vector.by_token() for vector in encoding.sparse]
    if encoding.colbert is not None:
        forms["colbert"] = list(encoding.colbert)
    return forms | {"dim": (rows[0].shape[1] or None) if rows else None}

"""The fields that the bodies and the answers of several routes share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, PlainValidator, StrictStr
from pydantic_core import PydanticCustomError

from engine.http.keep_alive import KeepAlive
from engine.http.truncation import Truncation
from engine.operations.operation import Answer


def _texts(value: object) -> list[str]:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise PydanticCustomError("texts", "must be a list of texts")


# Checked by hand: pydantic would collect an error for each of thousands of items.
Texts = Annotated[list[str], PlainValidator(_texts, json_schema_input_type=list[str])]


class Body(KeepAlive):
    """The fields of every request that runs an encoder; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore")

    model: StrictStr | None = None


class TextBody(Body, Truncation):
    """The fields of a request whose inputs may be longer than the encoder reads."""


def with_encoder(fields: Mapping[str, Any], body: Body, answer: Answer[Any]) -> dict[str, Any]:
    """Return `fields` with the encoder's name, as the request spelled it, and the revision of its weights.

    Where texts may be cut, also with the number of those that were.
    """
    fields = {**fields, "truncated": answer.cut.inputs} if isinstance(body, TextBody) else fields
    return {**fields, "model": body.model or answer.encoder, "revision": answer.revision}

"""The fields that the bodies and the answers of several routes share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, PlainValidator, StrictStr
from pydantic_core import PydanticCustomError

from engine.http.keep_alive import KeepAlive
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


def with_encoder(fields: Mapping[str, Any], body: Body, answer: Answer[Any]) -> dict[str, Any]:
    """Return `fields` with the encoder's name, as the request spelled it, and the revision of its weights."""
    return {**fields, "model": body.model or answer.encoder, "revision": answer.revision}

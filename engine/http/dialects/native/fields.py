"""Fields that the bodies of several routes have."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, PlainValidator, StrictStr
from pydantic_core import PydanticCustomError

from engine.http.keep_alive import KeepAlive


def _texts(value: object) -> list[str]:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise PydanticCustomError("texts", "must be a list of texts")


# Checked by hand: pydantic would collect an error for each of thousands of items.
Texts = Annotated[list[str], PlainValidator(_texts, json_schema_input_type=list[str])]


class Body(KeepAlive):
    """What every request that runs an encoder may carry; fields that are not ours are let through."""

    model_config = ConfigDict(extra="ignore")

    model: StrictStr | None = None


def shown(value: Any, model: str | None, encoder: str, revision: str | None) -> dict[str, Any]:
    """Return `value`, the fields of an answer, with who gave it: the name that was asked for, and the revision."""
    return {**value, "model": model or encoder, "revision": revision}

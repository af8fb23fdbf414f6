"""The OpenAI dialect: embeddings and models.

Source: OpenAI's API reference, "Create embeddings", "List models" and the error object.
"""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field, PlainValidator, StrictInt, StrictStr
from starlette.responses import Response

from engine.errors import InvalidInput, PilotlightError, UnknownEncoder
from engine.http.dialects.dialect import Dialect
from engine.http.dispatch import MAX_ITEMS, dispatch
from engine.http.keep_alive import KeepAlive
from engine.http.responses import json_response, json_response_off_loop, retry_after
from engine.http.statuses import status_of
from engine.http.token_ids.decoder import Decoder
from engine.http.truncation import Truncation
from engine.interface import EngineInterface
from engine.operations.dense import Embed, Encoding
from engine.operations.operation import Answer
from engine.settings.config import OWN_IDS, EncoderConfig
from engine.settings.naming import encoder_named

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_STARTED: Final = int(time.time())

_FACTS: Final = ("dimension", "max_tokens")
"""Facts of a model, known from its first load on, that its entry in the list says."""

_INPUT_RULE: Final = "input must be a text, a list of texts, a list of token ids, or a list of such lists."


def _checked_input(value: object) -> list[Any]:
    """Return the input as a list of texts or a list of token lists; stop at the first item that does not fit."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            return value
        if all(type(item) is int for item in value):
            return [value]
        if all(isinstance(item, list) and all(type(i) is int for i in item) for item in value):
            return value
    raise ValueError(_INPUT_RULE)


# Checked by hand: a union of lists would collect an error for each of millions of items.
Input = Annotated[
    list[Any], PlainValidator(_checked_input, json_schema_input_type=str | list[str] | list[int] | list[list[int]])
]


class EmbeddingsRequest(KeepAlive, Truncation):
    """The body of `POST /v1/embeddings`, `keep_alive` and `truncate`; fields that OpenAI may add later are ignored."""

    model_config = ConfigDict(extra="ignore")

    model: StrictStr | None = None
    input: Input
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[StrictInt, Field(ge=1)] | None = None
    user: StrictStr | None = None


def router(engine: EngineInterface) -> APIRouter:
    """Return this dialect's routes in front of `engine`."""
    routes = APIRouter()
    decoder = Decoder()

    @routes.post("/v1/embeddings")
    @routes.post("/embeddings", include_in_schema=False)
    async def embeddings(body: EmbeddingsRequest, request: Request) -> Response:
        operation = Embed(
            await _inputs(engine, body, decoder),
            dimensions=body.dimensions,
            truncate=body.may_cut,
            normalize=True,  # as OpenAI's are
            field="input",
        )
        embedded = await dispatch(engine, operation, body, request)
        name, encoding_format = body.model or embedded.encoder, body.encoding_format or "float"
        return await json_response_off_loop(lambda: shape(embedded, name, encoding_format))

    @routes.get("/v1/models")
    @routes.get("/models", include_in_schema=False)
    async def models() -> Response:
        return json_response(
            {"object": "list", "data": [_model(engine, encoder) for encoder in engine.config.encoders]}
        )

    @routes.get("/v1/models/{name:path}")
    @routes.get("/models/{name:path}", include_in_schema=False)
    async def model(name: str) -> Response:
        return json_response(_model(engine, encoder_named(engine.config, name)))

    return routes


async def _inputs(engine: EngineInterface, body: EmbeddingsRequest, decoder: Decoder) -> list[Any]:
    """Return the texts, also of token ids, unless the encoder takes its own."""
    if not body.input or isinstance(body.input[0], str) or len(body.input) > MAX_ITEMS:
        return body.input
    encoder = encoder_named(engine.config, engine.resolve(body.model, *Embed.kinds, part=Embed.part))
    if encoder.token_ids == OWN_IDS:
        return body.input
    return await decoder.texts(body.input, encoder, "input", offline=engine.config.hub.offline)


def shape(embedded: Answer[Encoding], model: str, encoding_format: str) -> dict[str, Any]:
    """Return the body of an answer; base64 is of little-endian float32."""
    vectors, tokens, cut = embedded.value.vectors, embedded.value.tokens, embedded.cut
    encode = _base64 if encoding_format == "base64" else _floats
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": i, "embedding": encode(v)} for i, v in enumerate(vectors)],
        "model": model,
        "usage": {
            "prompt_tokens": tokens,
            "total_tokens": tokens,
            "truncated": cut.inputs,
            "truncated_tokens": cut.tokens,
        },
        "dim": vectors.shape[1] or None,
        "revision": embedded.revision,
    }


def error_response(error: PilotlightError) -> Response:
    """Return the answer to an error of the engine."""
    status, wait = status_of(error)
    kinds = {
        400: "invalid_request_error",
        422: "invalid_request_error",
        404: "not_found_error",
        429: "overloaded_error",
    }
    code = "model_not_found" if isinstance(error, UnknownEncoder) else None
    param = error.param if isinstance(error, InvalidInput) else None
    return _failure(status, str(error), kinds.get(status, "api_error"), param, code, retry_after(wait))


def refusal(status: int, message: str, param: str | None = None) -> Response:
    """Return the answer to a request that no operation was made of; `param` names the field, if any."""
    return _failure(status, message, "invalid_request_error" if status < 500 else "api_error", param)


def _failure(
    status: int,
    message: str,
    kind: str,
    param: str | None,
    code: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    return json_response({"error": {"message": message, "type": kind, "param": param, "code": code}}, status, headers)


def _floats(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return vector


def _base64(vector: NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode("ascii")


def _model(engine: EngineInterface, encoder: EncoderConfig) -> dict[str, Any]:
    parts = [engine.view(component.name) for component in encoder.components]
    facts = {key: value for part in parts for key, value in part.metadata.items() if key in _FACTS}
    return {
        "id": encoder.name,
        "object": "model",
        "created": _STARTED,
        "owned_by": "pilotlight",
        "kind": encoder.kind,
        "aliases": encoder.aliases,
        "state": parts[0].state,
        **facts,
        **({"parts": {part.name: part.state for part in parts}} if len(parts) > 1 else {}),
    }


DIALECT: Final = Dialect(
    "openai",
    router,
    error_response,
    refusal,
    prefixes=("/v1/embeddings", "/embeddings", "/v1/models", "/models"),
    bad_body=400,
    rules={"input": _INPUT_RULE},
)

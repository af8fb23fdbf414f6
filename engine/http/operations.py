"""What the endpoint can do, in no dialect's words: each dialect parses into these calls and shapes their results."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from engine.engine import Engine
from engine.errors import (
    Closed,
    InputTooLarge,
    InvalidInput,
    LoadFailed,
    PilotlightError,
    QueueFull,
    SettingsError,
    SettingsForbidden,
    Unavailable,
    UnknownEncoder,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_ITEMS: Final = 2048
"""Inputs in one request."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors, float32 (n, d), None for an empty request; the tokens read; the encoder that answered."""

    vectors: NDArray[np.float32] | None
    tokens: int
    encoder: str
    revision: str | None


async def embed(
    engine: Engine,
    model: str | None,
    inputs: Sequence[str] | Sequence[Sequence[int]],
    *,
    dimensions: int | None = None,
    keep_alive: float | None = None,
    used_by: str | None = None,
) -> Embedded:
    """Encode texts, or lists of the encoder's own token ids; an empty list loads nothing and sets no timer.

    `keep_alive` is the seconds that the encoder stays afterwards: negative = the idle timer stops, 0 = unload when
    the request ends, None = as it was.

    Raises UnknownEncoder, InvalidInput, LoadFailed, Unavailable, QueueFull or Closed.
    """
    name = engine.resolve(model, "dense")
    if len(inputs) > MAX_ITEMS:
        raise InputTooLarge(
            f"input has {len(inputs)} items; the limit is {MAX_ITEMS}.",
            param="input",
            next_step="Send several requests.",
        )
    if not inputs:
        return Embedded(None, 0, name, engine.view(name).revision)

    def encode(adapter: Any) -> Embedded:
        encoding = adapter.encode(inputs, dimensions=dimensions)
        # Read here: a moment later the encoder may stand elsewhere, in another element type.
        return Embedded(encoding.vectors, encoding.tokens, name, adapter.revision)

    return await asyncio.wrap_future(engine.submit(name, encode, used_by, keep_alive))


def status_of(error: PilotlightError) -> tuple[int, float | None]:
    """Return the HTTP status for an error and, where waiting helps, the seconds for Retry-After."""
    match error:
        case InputTooLarge():
            return 422, None
        case SettingsForbidden():
            return 403, None
        case SettingsError():
            return 422, None
        case InvalidInput():
            return 400, None
        case UnknownEncoder():
            return 404, None
        case QueueFull(retry_in_seconds=seconds):
            return 429, seconds
        case LoadFailed(retry_in_seconds=seconds):
            return 503, seconds or 1.0
        case Unavailable():
            return 503, None
        case Closed():
            return 503, 1.0
        case _:
            return 500, None

"""How the endpoint runs an operation, for every dialect: each parses into one and shapes its result."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol, TypeVar

from fastapi import Request

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
from engine.operations.operation import Answer, Operation

T = TypeVar("T")


class Asked(Protocol):
    """What every body says that runs an encoder."""

    @property
    def model(self) -> str | None:
        """Which encoder, by name or alias; None for the default one."""

    @property
    def keep_alive_seconds(self) -> float | None:
        """How long it stays afterwards, as `KeepAlive` says."""


MAX_ITEMS: Final = 2048
"""Inputs in one request."""


async def run(engine: Engine, operation: Operation[T], body: Asked, request: Request) -> Answer[T]:
    """Run `operation` on the encoder that `body` names, else on the default one; one about no items loads nothing.

    Raises UnknownEncoder, InvalidInput, LoadFailed, Unavailable, QueueFull or Closed.
    """
    name = engine.resolve(body.model, *operation.kinds, part=operation.part)
    if operation.size > MAX_ITEMS:
        raise InputTooLarge(
            f"{operation.field} has {operation.size} items; the limit is {MAX_ITEMS}.",
            param=operation.field,
            next_step="Send several requests.",
        )
    used_by = request.headers.get("user-agent")
    return await asyncio.wrap_future(engine.ask(name, operation, used_by, body.keep_alive_seconds))


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

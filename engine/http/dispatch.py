"""How the endpoint runs an operation, for every dialect: each parses into one and shapes its result."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol, TypeVar

from fastapi import Request

from engine.engine import Engine
from engine.errors import InputTooLarge
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

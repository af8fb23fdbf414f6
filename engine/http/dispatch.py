"""The way of an operation from a route to the engine, the same for every dialect."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol, TypeVar

from fastapi import Request

from engine.errors import InputTooLarge
from engine.http.truncation import note_cut
from engine.interface import EngineInterface
from engine.operations.operation import Answer, Operation

T = TypeVar("T")

MAX_ITEMS: Final = 2048
"""Inputs in one request."""


class EncoderRequest(Protocol):
    """The fields of a body that choose an encoder and its stay, in every dialect."""

    @property
    def model(self) -> str | None:
        """The encoder's name or alias; None for the default one."""

    @property
    def keep_alive_seconds(self) -> float | None:
        """Seconds that the encoder stays afterwards, as in `KeepAlive`."""


async def dispatch(
    engine: EngineInterface, operation: Operation[T], body: EncoderRequest, request: Request
) -> Answer[T]:
    """Run `operation` on the encoder that `body` names, else on the default one.

    An operation about no items loads nothing. The headers of the answer say what was cut of the items. Raises
    UnknownEncoder, InvalidInput, LoadFailed, Unavailable, QueueFull or Closed.
    """
    if operation.size > MAX_ITEMS:
        # An encoder that does not exist is the first mistake to name, as for every other request.
        engine.resolve(body.model, *operation.kinds, part=operation.part)
        raise InputTooLarge(
            f"{operation.field} has {operation.size} items; the limit is {MAX_ITEMS}.",
            param=operation.field,
            next_step="Send several requests.",
        )
    used_by = request.headers.get("user-agent")
    answer = await asyncio.wrap_future(engine.ask(body.model, operation, used_by, body.keep_alive_seconds))
    note_cut(request, answer.cut)
    return answer

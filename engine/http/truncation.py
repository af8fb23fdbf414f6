"""Truncation on the wire: the field of a body that forbids it, and the headers of an answer that report it."""

from __future__ import annotations

from pydantic import BaseModel, StrictBool
from starlette.datastructures import MutableHeaders, State
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.operations.cut import NOTHING_CUT, Cut


class Truncation(BaseModel):
    """The field of a body whose inputs may be longer than its encoder reads."""

    truncate: StrictBool | None = None

    @property
    def may_cut(self) -> bool:
        """Whether such an input is cut; else it is an error."""
        return self.truncate is not False


def note_cut(request: Request, cut: Cut) -> None:
    """Keep what was cut for the headers of the answer to `request`."""
    request.state.cut = cut


class TruncationHeaders:
    """Adds `x-truncated-inputs` and `x-truncated-tokens` to the answer to a request whose inputs were cut."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = State(scope.setdefault("state", {}))

        async def send_with_headers(message: Message) -> None:
            cut: Cut = getattr(state, "cut", NOTHING_CUT)
            if message["type"] == "http.response.start" and cut != NOTHING_CUT:
                headers = MutableHeaders(scope=message)
                headers["x-truncated-inputs"] = str(cut.inputs)
                headers["x-truncated-tokens"] = str(cut.tokens)
            await send(message)

        await self._app(scope, receive, send_with_headers)

"""The native shape of errors: `{"detail", "title", "next_step"}`."""

from __future__ import annotations

from http import HTTPStatus

from starlette.responses import Response

from engine.errors import PilotlightError
from engine.http.responses import json_response, retry_after
from engine.http.statuses import status_of


def error_response(error: PilotlightError) -> Response:
    """Return the answer to an error of the engine."""
    status, wait = status_of(error)
    content = {"detail": error.message, "title": error.title, "next_step": error.next_step}
    return json_response(content, status, retry_after(wait))


def refusal(status: int, message: str, param: str | None = None) -> Response:
    """Return the answer to a request that no operation was made of; `message` names the field, if any."""
    title = "Input not accepted" if status == 422 else HTTPStatus(status).phrase
    return json_response({"detail": message, "title": title, "next_step": None}, status)

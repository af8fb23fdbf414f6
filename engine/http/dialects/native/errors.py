"""Pilotlight's own error shape."""

from __future__ import annotations

from starlette.responses import Response

from engine.errors import PilotlightError
from engine.http.responses import answer, retry_after
from engine.http.statuses import status_of


def error_answer(error: PilotlightError) -> Response:
    """Return `error` as `{"detail", "title", "next_step"}`."""
    status, wait = status_of(error)
    content = {"detail": error.message, "title": error.title, "next_step": error.next_step}
    return answer(content, status, retry_after(wait))


def failure(status: int, message: str, title: str) -> Response:
    """Return a refusal that no PilotlightError stands behind."""
    return answer({"detail": message, "title": title, "next_step": None}, status)

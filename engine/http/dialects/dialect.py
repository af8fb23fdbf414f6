"""A dialect as a value: the paths that speak it, its routes and the shapes of its errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fastapi import APIRouter
from starlette.responses import Response

from engine.errors import PilotlightError
from engine.interface import EngineInterface


class Refusal(Protocol):
    """Shapes the answer to a request that no operation was made of."""

    def __call__(self, status: int, message: str, param: str | None = None) -> Response:
        """Return the answer; `param` names the field of the body that is wrong."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One public API; `app.DIALECTS` lists those that the endpoint speaks."""

    name: str
    router: Callable[[EngineInterface], APIRouter]
    """Makes its routes in front of an engine."""
    error: Callable[[PilotlightError], Response]
    """Shapes the answer to an error of the engine."""
    refusal: Refusal
    prefixes: tuple[str, ...] = ()
    """Paths whose errors have its shape, with everything below them; none for the dialect of all other paths."""
    bad_body: int = 422
    """Status of a body whose fields do not fit."""
    rules: Mapping[str, str] = field(default_factory=dict)
    """Field of a body -> the sentence that refuses it, in place of the field's name and pydantic's message."""

    def claims(self, path: str) -> bool:
        """Return whether `path` is one of the prefixes or below it: `/embed` claims `/embed/x`, not `/embed_all`."""
        return any(path == prefix or path.startswith(f"{prefix}/") for prefix in self.prefixes)

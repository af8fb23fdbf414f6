"""Pilotlight's own dialect: one file per kind of encoder, and the shape of its errors."""

from __future__ import annotations

from fastapi import APIRouter

from engine.engine import Engine
from engine.http.dialects.native import axes, bundle, classify, dense, image_text, multi, plugin, rerank, sparse, tag
from engine.http.dialects.native.errors import error_answer, failure

__all__ = ["error_answer", "failure", "router"]


def router(engine: Engine) -> APIRouter:
    """Return this dialect's routes in front of `engine`."""
    routes = APIRouter()
    for kind in (axes, bundle, classify, dense, image_text, multi, plugin, rerank, sparse, tag):
        routes.include_router(kind.router(engine))
    return routes

"""Pilotlight's own dialect, which also answers for every path that no other dialect claims."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from engine.http.dialects.dialect import Dialect
from engine.http.dialects.native import axes, bundle, classify, dense, image_text, multi, plugin, rerank, sparse, tag
from engine.http.dialects.native.errors import error_response, refusal
from engine.interface import EngineInterface


def router(engine: EngineInterface) -> APIRouter:
    """Return this dialect's routes in front of `engine`."""
    routes = APIRouter()
    for kind in (axes, bundle, classify, dense, image_text, multi, plugin, rerank, sparse, tag):
        routes.include_router(kind.router(engine))
    return routes


DIALECT: Final = Dialect("native", router, error_response, refusal)

"""Engines with encoders of one kind on the CPU, and the library's own model of the same folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine import Engine, parse

TEXTS = ["a pilot light is the small flame", "", "short", "the flame stays lit " * 40, "🔥 \x00 zzz", "query: gas"]


def engine_of(kind: str, **models: Path | str | dict[str, Any]) -> Engine:
    """Return an engine with one encoder of `kind` for each keyword: a model or the encoder's settings."""
    settings = {name: model if isinstance(model, dict) else {"model": str(model)} for name, model in models.items()}
    encoders = {name: {"kind": kind, **setting} for name, setting in settings.items()}
    return Engine(parse({"hardware": {"device": "cpu", "idle_timeout_seconds": 0}, "encoders": encoders}))


def library_of(kind: str, folder: Path) -> Any:
    """Return the model of sentence-transformers for a folder, on the CPU."""
    import sentence_transformers

    of_kind = {
        "dense": sentence_transformers.SentenceTransformer,
        "sparse": sentence_transformers.SparseEncoder,
        "rerank": sentence_transformers.CrossEncoder,
    }
    return of_kind[kind](str(folder), device="cpu", local_files_only=True)


def ids_of(engine: Engine, name: str, text: str, task: str | None = None) -> list[int]:
    """Return the token ids that an encoder makes of a text."""
    found: list[int] = engine.call(name, lambda adapter: adapter.tokenize(text, task))
    return found

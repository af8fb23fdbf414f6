"""Which dialect answers for a path, and how another one joins."""

from __future__ import annotations

import pytest
from fastapi import APIRouter
from http_fakes import Caller, FakeDense
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from engine.engine import Engine
from engine.errors import InvalidInput, PilotlightError
from engine.http import app
from engine.http.dialects.dialect import Dialect
from engine.interface import EngineInterface


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/embeddings", "openai"),
        ("/embeddings", "openai"),
        ("/embeddings/", "openai"),
        ("/v1/models", "openai"),
        ("/v1/models/org/name", "openai"),
        ("/models/org/name", "openai"),
        ("/v1/embeddings2", "native"),
        ("/modelsx", "native"),
        ("/v1", "native"),
        ("/v1/rerank", "native"),
        ("/encode/dense", "native"),
        ("/admin/config", "native"),
        ("/", "native"),
        ("", "native"),
        ("*", "native"),
    ],
)
def test_a_path_speaks_the_dialect_that_claims_it_by_whole_segments(path: str, name: str) -> None:
    assert app.dialect_of(path).name == name


def test_no_two_dialects_claim_one_path_and_the_last_claims_none() -> None:
    claimed = [prefix for dialect in app.DIALECTS for prefix in dialect.prefixes]
    assert all(sum(dialect.claims(prefix) for dialect in app.DIALECTS) == 1 for prefix in claimed)
    assert app.DIALECTS[-1].prefixes == ()


class Body(BaseModel):
    number: int
    word: str = ""


def routes(engine: EngineInterface) -> APIRouter:
    router = APIRouter()

    @router.post("/embed")
    async def embed(body: Body) -> Response:
        if body.number:
            return JSONResponse([engine.config.server.port])
        raise InvalidInput("Not nought.")

    return router


def refusal(status: int, message: str, param: str | None = None) -> Response:
    return JSONResponse({"error": message, "field": param}, status)


def error(error: PilotlightError) -> Response:
    return JSONResponse({"error": str(error), "field": ""}, 424)


def test_a_dialect_of_its_own_joins_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = {"word": "word is a word."}
    other = Dialect("other", routes, error, refusal, prefixes=("/embed",), bad_body=413, rules=rules)
    monkeypatch.setattr(app, "DIALECTS", (other, *app.DIALECTS))
    with Engine(adapter=FakeDense) as engine:
        caller = Caller(app.create_app(engine, host="127.0.0.1", token="t", version="1"), "t")

        def answer(body: object) -> tuple[int, object]:
            got = caller.send("POST", "/embed", json=body)
            return got.status_code, got.json()

        assert answer({"number": 1}) == (200, [7458])
        assert answer({"number": 0}) == (424, {"error": "Not nought.", "field": ""})
        assert answer({"number": 1, "word": 2}) == (413, {"error": "word is a word.", "field": "word"})
        status, body = answer({})
        assert (status, body) == (413, {"error": "number: Field required.", "field": "number"})
        assert set(caller.send("GET", "/embed").json()) == {"error", "field"}
        assert set(caller.send("POST", "/embed", host="evil.example").json()) == {"error", "field"}
        assert set(caller.send("GET", "/embeddings").json()) == {"error"}
        assert set(caller.send("GET", "/embed_all").json()) == {"detail", "title", "next_step"}

"""Long inputs with real models: what is cut is in the answer and in the row, and refused where it must not be cut."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import image_text_models
import multi_models
import pair_models
import pytest
import small_models
import sparse_models
from running import Home, Running

LONG: Final = "a b c d e " * 400
SHORT: Final = "a b"


def clip(folder: Path) -> Path:
    return image_text_models.image_text_model(folder, "clip")


MODELS: Final[Mapping[str, Callable[[Path], Path]]] = {
    "dense": small_models.bert,
    "sparse": sparse_models.splade,
    "multi": multi_models.m3,
    "rerank": pair_models.cross_encoder,
    "classify": pair_models.deberta,
    "image_text": clip,
}
ROUTES: Final[Mapping[str, tuple[str, Mapping[str, Any], str]]] = {
    "/v1/embeddings": ("dense", {"input": [SHORT, LONG]}, "input[1]"),
    "/encode/dense": ("dense", {"texts": [SHORT, LONG]}, "texts[1]"),
    "/encode/sparse": ("sparse", {"texts": [SHORT, LONG]}, "texts[1]"),
    "/encode/multi": ("multi", {"texts": [SHORT, LONG]}, "texts[1]"),
    "/encode/rerank": ("rerank", {"query": "a", "texts": [SHORT, LONG]}, "texts[1]"),
    "/encode/classify": ("classify", {"texts": [SHORT, LONG]}, "texts[1]"),
    "/encode/image_text": ("image_text", {"texts": [SHORT, LONG]}, "texts[1]"),
    "/encode/axes": ("axes", {"texts": [SHORT, LONG]}, "texts[1]"),
    "/encode/bundle": ("dense", {"text": LONG}, "text"),
}
"""Path -> the encoder whose row counts, a body with one long input, and the name of this input in errors."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("truncation")
    tables = [f'[encoders.{kind}]\nkind = "{kind}"\nmodel = "{make(folder / kind)}"\n' for kind, make in MODELS.items()]
    axes = '[encoders.axes]\nkind = "axes"\nbase = "dense"\n'
    hardware = '[hardware]\ndevice = "cpu"\nidle_timeout_seconds = 0\n'
    running = Running(Home(folder / "home", "\n".join((hardware, *tables, axes))))
    yield running
    running.end()


def asked(served: Running, path: str, **more: Any) -> httpx.Response:
    _, body, _ = ROUTES[path]
    return served.http.post(path, json={**body, **more})


def row(served: Running, path: str) -> dict[str, Any]:
    name = ROUTES[path][0]
    rows = served.http.get("/admin/components").json()["components"]
    return next(one for one in rows if one["name"] in (name, f"{name}.text"))


@pytest.mark.parametrize("path", ROUTES)
def test_what_is_cut_is_in_the_answer_and_in_the_row(served: Running, path: str) -> None:
    before = row(served, path)
    answer = asked(served, path)
    assert answer.status_code == 200, answer.text
    body, after = answer.json(), row(served, path)
    told = body["usage"]["truncated"] if "usage" in body else body["truncated"]
    tokens = int(answer.headers["x-truncated-tokens"])
    assert told == int(answer.headers["x-truncated-inputs"]) == 1
    assert tokens > 100
    if "usage" in body:
        assert body["usage"]["truncated_tokens"] == tokens
    assert after["truncated_inputs"] - before["truncated_inputs"] == 1
    counted = after["truncated_tokens"] - before["truncated_tokens"]
    # A bundle names the encoder that read least, which is another one.
    assert counted == tokens or (path == "/encode/bundle" and 100 < counted < tokens)


@pytest.mark.parametrize("path", ROUTES)
def test_truncate_false_names_the_input_its_length_and_the_limit(served: Running, path: str) -> None:
    answer = asked(served, path, truncate=False)
    assert answer.status_code == 400, answer.text
    error = answer.json()
    message = error["error"]["message"] if "error" in error else f"{error['detail']} {error['next_step']}"
    name = ROUTES[path][2]
    assert message.startswith(name)
    numbers = [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", message.removeprefix(name))]
    limit = row(served, path)["metadata"].get("max_tokens") or row(served, "/encode/dense")["metadata"]["max_tokens"]
    assert limit in numbers
    assert max(numbers) > limit


def test_what_fits_is_answered_with_and_without_truncation(served: Running) -> None:
    for truncate in (True, False, None):
        answer = served.http.post("/v1/embeddings", json={"model": "dense", "input": SHORT, "truncate": truncate})
        assert answer.status_code == 200
        assert answer.json()["usage"]["truncated"] == 0
        assert "x-truncated-inputs" not in answer.headers


def test_the_list_of_models_says_what_each_reads(served: Running) -> None:
    asked(served, "/v1/embeddings")
    entry = served.http.get("/v1/models/dense").json()
    facts = row(served, "/v1/embeddings")["metadata"]
    assert (entry["max_tokens"], entry["dimension"]) == (facts["max_tokens"], facts["dimension"])

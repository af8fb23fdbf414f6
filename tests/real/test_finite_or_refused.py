"""NaN in each weight of a small model of each kind: the answer is refused if it depends on that weight, else unchanged.

A weight counts as one that the answer depends on if another finite value of it changes the answer.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from every_kind import LABELS
from image_text_models import image_text_model
from multi_models import m3
from pair_models import cross_encoder, deberta
from picture_files import picture, written
from small_models import bert
from sparse_models import splade

from engine import Engine, NotFinite, parse
from engine.adapters.text.rows import Limit
from engine.http.app import create_app

TEXT = "a small flame"
IMAGE = written(picture())

Answers = Callable[[Engine], list[Any]]


def of_texts(engine: Engine) -> list[Any]:
    return [engine.image_text("x").encode_texts([TEXT])]


def of_images(engine: Engine) -> list[Any]:
    return [engine.image_text("x").encode_images([IMAGE])]


def with_a_dense_layer(folder: Path) -> Path:
    return bert(folder, dense=True)


KINDS: dict[str, tuple[str, Callable[[Path], Path], Answers]] = {
    "dense": ("dense", with_a_dense_layer, lambda e: [e.dense("x").encode([TEXT])]),
    "sparse": ("sparse", splade, lambda e: _weights(e.sparse("x").encode([TEXT], top_k=5))),
    "multi.dense": ("multi", m3, lambda e: [e.multi("x").encode([TEXT], want=["dense"]).dense]),
    "multi.sparse": ("multi", m3, lambda e: _weights(e.multi("x").encode([TEXT], want=["sparse"]).sparse or ())),
    "multi.colbert": ("multi", m3, lambda e: [*(e.multi("x").encode([TEXT], want=["colbert"]).colbert or ())]),
    "rerank": ("rerank", cross_encoder, lambda e: [e.rerank("x").score("fire", [TEXT])]),
    "classify": ("classify", deberta, lambda e: [e.classify("x").classify([TEXT]).logits]),
    "clip.text": ("image_text", partial(image_text_model, family="clip"), of_texts),
    "clip.image": ("image_text", partial(image_text_model, family="clip"), of_images),
    "siglip.text": ("image_text", partial(image_text_model, family="siglip"), of_texts),
    "siglip2.image": ("image_text", partial(image_text_model, family="siglip2"), of_images),
    "axes": ("dense", bert, lambda e: [e.axes("along").encode([TEXT])]),
}
"""Name -> kind, a maker of its folder, and the arrays of an answer of encoder `x`, or of axes that stand on it."""

UNUSED = {
    "dense": "pooler",
    "multi.dense": "_linear",
    "multi.sparse": "colbert_linear",
    "multi.colbert": "sparse_linear",
    "axes": "pooler",
}
"""Part of the names of weights that an answer of this kind must not depend on."""

pytestmark = pytest.mark.usefixtures("own_cache")


def _weights(vectors: Any) -> list[Any]:
    return [array for vector in vectors for array in (vector.indices, vector.weights)]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Engine]]:
    name = request.param
    kind, make, _ = KINDS[name]
    folder = make(tmp_path_factory.mktemp("finite") / "model")
    with engine_of(kind, folder) as engine:
        yield name, engine


def engine_of(kind: str, folder: Path, **more: Any) -> Engine:
    axes = [{"name": "hot", "anchor": "the fire"}, {"name": "cold", "anchor": "ice"}]
    encoders: dict[str, Any] = {"x": {"kind": kind, "model": str(folder), **more}}
    if kind == "dense":
        encoders["along"] = {"kind": "axes", "base": "x", "axes": axes}
    return Engine(parse({"hardware": {"device": "cpu", "idle_timeout_seconds": 0}, "encoders": encoders}))


def component(name: str) -> str:
    """The encoder whose weights make an answer."""
    return f"x.{name.split('.')[1]}" if KINDS[name][0] == "image_text" else "x"


def parameters(engine: Engine, name: str) -> dict[str, Any]:
    """The weights of a loaded encoder by name."""
    module = engine.call(component(name), lambda adapter: adapter._module)
    return {own: weight for own, weight in module.named_parameters() if weight.is_floating_point()}


@contextmanager
def replaced(weight: Any, value: Any, rows: Any = slice(None)) -> Iterator[None]:
    """Have `value` in a weight, or in some rows of it."""
    import torch

    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight[rows] = value
        yield
    finally:
        with torch.no_grad():
            weight.copy_(before)


def same(one: list[Any], other: list[Any]) -> bool:
    return all(map(np.array_equal, one, other))


def test_nan_in_a_weight_is_refused_where_the_answer_depends_on_it_and_changes_nothing_elsewhere(
    kind: tuple[str, Engine],
) -> None:
    name, engine = kind
    answer = KINDS[name][2]
    clean = answer(engine)
    refused, unused = 0, UNUSED.get(name)
    planted = [(own, weight, rows) for own, weight in parameters(engine, name).items() for rows in (slice(None), 0)]
    for own, weight, rows in planted:
        if not weight.ndim:
            continue
        with replaced(weight, weight.detach()[rows] * -1.5 + 0.25, rows):
            depends = not same(answer(engine), clean)
        with replaced(weight, float("nan"), rows):
            message = refusal(answer, engine, clean)
        assert same(answer(engine), clean), f"{own} is not as it was"
        assert message or not depends, own
        if message:
            refused += 1
            assert f"{component(name)} gives NaN for " in message, own
            assert not (unused and unused in own), own
    assert refused > 5


def refusal(answer: Answers, engine: Engine, clean: list[Any]) -> str | None:
    """The message of the refusal; None for an answer, which must be the clean one."""
    try:
        found = answer(engine)
    except NotFinite as error:
        return error.message
    assert same(found, clean), "another answer without a word"
    return None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_token_that_is_in_no_text_may_have_any_weight(kind: tuple[str, Engine], value: float) -> None:
    name, engine = kind
    if name in ("clip.image", "siglip2.image", "sparse"):
        pytest.skip("it has no table of tokens, or one that is its head too")
    answer = KINDS[name][2]
    clean = answer(engine)
    table = next(
        weight
        for own, weight in parameters(engine, name).items()
        if "word_embeddings" in own or "token_embedding" in own
    )
    there = {*engine.call(component(name), lambda adapter: _ids(adapter, TEXT + " fire the ice"))}
    absent = next(index for index in range(len(table) - 1, 4, -1) if index not in there)
    with replaced(table, value, absent):
        assert same(answer(engine), clean)
    present = engine.call(component(name), lambda adapter: _ids(adapter, TEXT))[2]
    with replaced(table, value, present), pytest.raises(NotFinite):
        answer(engine)


@pytest.mark.parametrize("compared", [False, True], ids=["first batch", "later batch"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["dense", "multi.colbert", "rerank", "classify"])
def test_the_padding_of_a_batch_may_have_any_weight(name: str, value: float, compared: bool, tmp_path: Path) -> None:
    kind, make, _ = KINDS[name]
    with engine_of(kind, make(tmp_path / "model")) as engine:
        texts = ["a", f"{TEXT} {TEXT}", TEXT, "ice"]
        alone = [_of(engine, kind, [text]) for text in texts]
        if compared:
            _of(engine, kind, texts)
        weights = parameters(engine, name)
        table = next(weight for own, weight in weights.items() if "word_embeddings" in own)
        module = engine.call("x", lambda adapter: adapter._module)
        with replaced(table, value, module.tokenizer.pad_token_id):
            together = _of(engine, kind, texts)
        for beside, [own] in zip(together, alone, strict=True):
            np.testing.assert_allclose(beside, own, atol=1e-5)


def _of(engine: Engine, kind: str, texts: list[str]) -> list[Any]:
    """The answer of encoder `x` to each of some texts."""
    if kind == "multi":
        return [*(engine.multi("x").encode(texts, want=["colbert"]).colbert or ())]
    if kind == "rerank":
        return [*engine.rerank("x").score("fire", texts)]
    return [*(engine.dense("x").encode(texts) if kind == "dense" else engine.classify("x").classify(texts).logits)]


def _ids(adapter: Any, text: str) -> list[int]:
    module = adapter._module
    if hasattr(module, "tower"):
        return module.tower.rows([text.lower()], Limit("x", None)).rows[0]["input_ids"].tolist()
    return module.tokenizer(text)["input_ids"]


REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("/v1/embeddings", {"input": [TEXT], "encoding_format": "base64"}),
    "sparse": ("/encode/sparse", {"texts": [TEXT]}),
    "multi.dense": ("/encode/multi", {"texts": [TEXT], "return": ["dense"]}),
    "multi.sparse": ("/encode/multi", {"texts": [TEXT], "return": ["sparse"]}),
    "multi.colbert": ("/encode/multi", {"texts": [TEXT], "return": ["colbert"]}),
    "rerank": ("/encode/splice", {"query": "fire", "fragments": [[TEXT, "ice"]]}),
    "classify": ("/encode/classify", {"texts": [TEXT]}),
    "clip.text": ("/encode/image_text", {"texts": [TEXT]}),
    "siglip.text": ("/encode/image_text", {"texts": [TEXT]}),
    "clip.image": ("/encode/image", {"images": [base64.b64encode(IMAGE).decode()]}),
    "siglip2.image": ("/encode/image", {"images": [base64.b64encode(IMAGE).decode()]}),
    "axes": ("/encode/axes", {"texts": [TEXT]}),
}


def test_it_is_a_500_over_http_that_names_encoder_and_input(kind: tuple[str, Engine]) -> None:
    name, engine = kind
    KINDS[name][2](engine)
    weights = parameters(engine, name)
    used = next(weight for own, weight in weights.items() if "word_embeddings" in own or "embedding" in own)
    path, body = REQUESTS[name]
    with replaced(used, float("nan")):
        answer = post(engine, path, body)
    assert answer.status_code == 500
    assert f"{component(name)} gives NaN for " in answer.text
    assert "null" not in answer.text.replace('"param":null,"code":null', "")


def post(engine: Engine, path: str, body: dict[str, Any]) -> httpx.Response:
    app = create_app(engine, host="127.0.0.1", token="t", version="1")

    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7458") as client:
            return await client.post(path, json=body)

    return asyncio.run(once())


def test_axes_whose_sentences_have_no_finite_vector_say_so_until_their_base_has_other_weights(tmp_path: Path) -> None:
    with engine_of("dense", bert(tmp_path / "model")) as engine:
        engine.dense("x").encode([TEXT])
        weights = parameters(engine, "axes")
        norm = next(weight for own, weight in weights.items() if own.endswith("output.LayerNorm.weight"))
        with replaced(norm, float("nan")):
            for _ in range(2):
                with pytest.raises(NotFinite, match=r"^along stands on x: x gives NaN for texts\[0\]"):
                    engine.axes("along").encode([TEXT])
            assert "x gives NaN for axes[0]" in (engine.view("along").note or "")
        assert np.isfinite(engine.axes("along").encode([TEXT])).all()


def test_a_bundle_names_its_text(tmp_path: Path) -> None:
    with engine_of("multi", m3(tmp_path / "model")) as engine:
        engine.multi("x").encode([TEXT])
        weights = parameters(engine, "multi.dense")
        with replaced(weights["sparse_linear.weight"], float("nan")):
            with pytest.raises(NotFinite, match=r"^x gives NaN for text\."):
                engine.bundle(TEXT)
            assert engine.multi("x").encode([TEXT], want=["dense"]).dense is not None


def test_half_precision_that_overflows_is_told_what_to_set(tmp_path: Path) -> None:
    folder = cross_encoder(tmp_path / "model", labels=LABELS)
    with engine_of("classify", folder, dtype="float16") as engine:
        engine.classify("x").classify([TEXT])
        weights = parameters(engine, "classify")
        large = next(weight for own, weight in weights.items() if own.endswith("classifier.weight"))
        with replaced(large, 60000.0), pytest.raises(NotFinite) as caught:
            engine.classify("x").classify(["a", TEXT])
    assert 'set dtype = "float32"' in (caught.value.next_step or "")


@pytest.mark.parametrize("name", ["dense", "multi.dense", "multi.colbert", "clip.text", "clip.image"])
def test_vectors_whose_length_is_no_float32_have_length_1_and_are_no_zeros(name: str, tmp_path: Path) -> None:
    from torch.nn import Identity

    kind, make, answer = KINDS[name]
    with engine_of(kind, make(tmp_path / "model")) as engine:
        clean = answer(engine)
        if name == "dense":
            engine.call("x", lambda adapter: setattr(adapter._module[2], "activation_function", Identity()))
            clean = answer(engine)
        weights = parameters(engine, name)
        last = next(own for own in reversed(weights) if own.endswith(LAST[name]))
        with ExitStack() as ends:
            for own in (last, last.replace("weight", "bias")):
                if own in weights:
                    ends.enter_context(replaced(weights[own], weights[own].detach() * 1e25))
            for wanted, found in zip(clean, answer(engine), strict=True):
                np.testing.assert_allclose(found, wanted, atol=1e-5)


LAST = {
    "dense": "linear.weight",
    "multi.dense": "output.LayerNorm.weight",
    "multi.colbert": "colbert_linear.weight",
    "clip.text": "text_projection.weight",
    "clip.image": "visual_projection.weight",
}
"""End of the names of the weights that scale the vectors of a kind before they are brought to length 1."""

"""A batch of any texts gives the results that its texts have alone, in every family, whatever the tokenizer says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from byte_models import byte_tokenizer, gpt2, qwen3, qwen3_pairs, t5
from chat_models import as_reranker, chat_model
from engines import engine_of
from hypothesis import HealthCheck, given, settings, strategies as st
from pair_models import cross_encoder, deberta
from small_models import bert, xlm_roberta
from sparse_models import splade

from engine import Engine, InvalidInput

Ask = Callable[[Engine, list[str]], Any]

ODD: Final = (
    "",
    " ",
    "\u200b",
    "\x00",
    "[PAD]",
    "<pad> a",
    "a <|endoftext|>",
    "</s>",
    "[CLS] [SEP] [MASK]",
    "\U0001f44d\U0001f3fd",
    "a" * 700,
    "so that the big burner lights at once " * 30,
)
TEXTS: Final = st.lists(st.one_of(st.text(max_size=30), st.sampled_from(ODD)), min_size=1, max_size=6)


def with_padding(folder: Path, side: str, *, pad: bool) -> Path:
    """Change the side of the padding in a tokenizer's file, and take its padding token away."""
    file = folder / "tokenizer_config.json"
    said = json.loads(file.read_text(encoding="utf-8"))
    said["padding_side"] = side
    if not pad:
        said["pad_token"] = None
    file.write_text(json.dumps(said), encoding="utf-8")
    return folder


def from_bytes(make: Callable[..., Path]) -> Callable[..., Path]:
    def made(folder: Path, side: str, *, pad: bool) -> Path:
        return make(folder, byte_tokenizer(pad="<|endoftext|>" if pad else None, side=side))

    return made


def from_pieces(make: Callable[..., Path]) -> Callable[..., Path]:
    return lambda folder, side, *, pad: with_padding(make(folder), side, pad=pad)


def dense(engine: Engine, texts: list[str]) -> Any:
    return engine.dense().encode(texts)


def sparse(engine: Engine, texts: list[str]) -> Any:
    found = np.zeros((len(texts), 512), dtype=np.float32)
    for row, vector in zip(found, engine.sparse().encode(texts, top_k=512), strict=True):
        row[vector.indices] = vector.weights
    return found


def scores(engine: Engine, texts: list[str]) -> Any:
    return engine.call("one", lambda adapter: adapter.score("the query", texts).raw)


def logits(engine: Engine, texts: list[str]) -> Any:
    return engine.classify().classify(texts).logits


def yes_or_no(folder: Path) -> Path:
    return as_reranker(folder, chat_model(folder.with_name("chat")))


FAMILIES: Final[dict[str, tuple[str, Callable[..., Path], Ask]]] = {
    "bert": ("dense", from_pieces(bert), dense),
    "xlm-roberta": ("dense", from_pieces(xlm_roberta), dense),
    "gpt2": ("dense", from_bytes(gpt2), dense),
    "qwen3": ("dense", from_bytes(qwen3), dense),
    "t5": ("dense", from_bytes(t5), dense),
    "splade": ("sparse", from_pieces(splade), sparse),
    "bert pairs": ("rerank", from_pieces(cross_encoder), scores),
    "qwen3 pairs": ("rerank", from_bytes(qwen3_pairs), scores),
    "qwen3 labels": ("classify", from_bytes(lambda *given: qwen3_pairs(*given, labels=3)), logits),
    "yes or no": ("rerank", from_pieces(yes_or_no), scores),
    "deberta labels": ("classify", from_pieces(deberta), logits),
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str, bool], Engine]]:
    """An engine with one model of a family, made once."""
    made: dict[Any, Engine] = {}
    with ExitStack() as ends:

        def of(family: str, side: str, pad: bool) -> Engine:
            if (family, side, pad) not in made:
                kind, make, _ = FAMILIES[family]
                folder = make(tmp_path_factory.mktemp("model") / "it", side, pad=pad)
                made[family, side, pad] = ends.enter_context(engine_of(kind, one=folder))
            return made[family, side, pad]

        yield of


def answer(ask: Ask, engine: Engine, texts: list[str]) -> Any:
    """The result, or the error if it is the caller's."""
    try:
        return ask(engine, texts)
    except InvalidInput as error:
        found = error
    assert any(f"[{index}]" in str(found) for index in range(len(texts)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("pad", [True, False], ids=["pad", "no pad"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=6, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=TEXTS)
def test_any_batch_gives_what_its_texts_give_alone(
    engine: Callable[[str, str, bool], Engine], family: str, side: str, pad: bool, texts: list[str]
) -> None:
    one, ask = engine(family, side, pad), FAMILIES[family][2]
    together = answer(ask, one, texts)
    alone = [answer(ask, one, [text]) for text in texts]
    if isinstance(together, InvalidInput):
        assert any(isinstance(found, InvalidInput) for found in alone)
        return
    for beside, found in zip(together, alone, strict=True):
        assert np.isfinite(found).all()
        np.testing.assert_allclose(beside, found[0], rtol=0, atol=1e-5 * max(1.0, float(np.abs(found).max())))

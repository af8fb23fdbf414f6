"""Inputs longer than a model reads: counted where they are cut, named where they must not be."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from byte_models import bart, byte_tokenizer, mpnet, mpt, opt, t5
from engines import engine_of, library_of
from multi_models import m3
from pair_models import cross_encoder
from small_models import bert, xlm_roberta
from sparse_models import splade

from engine import InvalidInput
from engine.operations.classify import Classify
from engine.operations.cut import Cut
from engine.operations.dense import Embed
from engine.operations.multi import EncodeMulti
from engine.operations.rerank import Score
from engine.operations.sparse import EncodeSparse

LONG = "a b c d e " * 100
"""500 tokens, without special ones."""

pytestmark = pytest.mark.usefixtures("own_cache")

CASES: dict[str, Any] = {
    "dense": ("dense", bert, lambda **more: Embed(["a", LONG], **more), 502 - 128),
    "ids": ("dense", bert, lambda **more: Embed([[10], [10] * 500], **more), 502 - 128),
    "sparse": ("sparse", splade, lambda **more: EncodeSparse(["a", LONG], **more), 502 - 64),
    "multi": ("multi", m3, lambda **more: EncodeMulti(["a", LONG], **more), 502 - 128),
    "rerank": ("rerank", cross_encoder, lambda **more: Score("a", ["a", LONG], **more), 504 - 128),
    "classify": ("classify", cross_encoder, lambda **more: Classify([("a", "a"), ("a", LONG)], **more), 504 - 128),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_cut_is_counted_and_refused_by_name_where_it_must_not_be(case: str, tmp_path: Path) -> None:
    kind, make, ask, tokens = CASES[case]
    with engine_of(kind, one=make(tmp_path / "model")) as engine:
        assert engine.call("one", ask()).cut == Cut(1, tokens)
        with pytest.raises(InvalidInput, match=rf"\[1\] has {tokens + engine.view('one').metadata['max_tokens']} tok"):
            engine.call("one", ask(truncate=False))


def test_a_query_that_alone_is_too_long_is_named_itself(tmp_path: Path) -> None:
    with (
        engine_of("rerank", one=cross_encoder(tmp_path / "model")) as engine,
        pytest.raises(InvalidInput, match=r"^query has \d+ tokens") as refused,
    ):
        engine.call("one", Score(LONG, ["a"], truncate=False))
    assert refused.value.param == "query"


@pytest.mark.parametrize(
    ("make", "asked", "limit"),
    [(xlm_roberta, 64, 64), (xlm_roberta, 1000, 128), (bert, 1000, 130), ("t5", None, 8192), ("t5", 20_000, 20_000)],
)
def test_the_users_limit_lowers_freely_and_raises_up_to_the_table_of_positions(
    make: Any, asked: int | None, limit: int, tmp_path: Path
) -> None:
    folder = t5(tmp_path / "model", byte_tokenizer()) if make == "t5" else make(tmp_path / "model")
    with engine_of("dense", one={"model": str(folder), **({} if asked is None else {"max_tokens": asked})}) as engine:
        engine.dense().encode(["a"])
        assert engine.view("one").metadata["max_tokens"] == limit


@pytest.mark.parametrize(("make", "rows"), [(opt, 64), (bart, 64), (mpnet, 62), (mpt, 64)])
def test_rows_before_the_first_position_are_no_tokens_that_are_read(make: Any, rows: int, tmp_path: Path) -> None:
    folder = make(tmp_path / "model", byte_tokenizer(pad="<pad>"))
    letters = "so that the big burner lights at once " * 9
    with engine_of("dense", one={"model": str(folder), "max_tokens": 10_000}) as engine:
        vectors = engine.dense().encode(["a", letters, letters[:rows], letters[: rows - 1]])
        assert engine.view("one").metadata["max_tokens"] == rows
        assert engine.call("one", Embed([letters[: rows + 1]])).cut == Cut(1, 1)
    np.testing.assert_allclose(vectors[1], vectors[2], atol=1e-6)
    assert np.abs(vectors[2] - vectors[3]).max() > 1e-3
    np.testing.assert_allclose(vectors[2], library_of("dense", folder).encode(letters[:rows]), atol=1e-5)


@pytest.mark.parametrize("case", ["dense", "sparse", "multi", "rerank", "classify"])
def test_a_token_without_a_vector_is_refused_with_its_text_named(case: str, tmp_path: Path) -> None:
    kind, make, ask, _ = CASES[case]
    folder = with_rows(make(tmp_path / "model"), 80)
    with engine_of(kind, one=folder) as engine:
        operation = ask()
        [field] = {"texts", "documents", "inputs"} & {one.name for one in fields(operation)} or {"inputs"}
        known, unknown = (("!", "#"), ("!", "~")) if kind == "classify" else ("#", "~")
        more = {"query": "!"} if kind == "rerank" else {}
        good = engine.call("one", replace(operation, **{field: [known]}, **more))
        assert good.tokens > 0
        with pytest.raises(InvalidInput, match=r"\[1\] has a token with id \d+, but one has vectors for 80 tokens"):
            engine.call("one", replace(operation, **{field: [known, unknown, known]}, **more))


@pytest.mark.parametrize("ids", [[80], [-1], [2**70], []])
def test_ids_without_a_vector_are_refused_with_their_list_named(ids: list[int], tmp_path: Path) -> None:
    with engine_of("dense", one=with_rows(bert(tmp_path / "model"), 80)) as engine:
        assert engine.call("one", Embed([[79]])).tokens == 3
        with pytest.raises(InvalidInput, match=r"^texts\[1\] holds token ids outside 0 to 79"):
            engine.call("one", Embed([[10], ids, [11]]))


def with_rows(folder: Path, rows: int) -> Path:
    """Leave that many rows in the tables of a model's tokens, and its tokenizer as it is."""
    from safetensors.torch import load_file, save_file

    file, config = folder / "model.safetensors", folder / "config.json"
    said = json.loads(config.read_text(encoding="utf-8"))
    weights = {
        name: weight[:rows].contiguous() if weight.shape[0] == said["vocab_size"] else weight
        for name, weight in load_file(file).items()
    }
    save_file(weights, file, {"format": "pt"})
    config.write_text(json.dumps({**said, "vocab_size": rows}), encoding="utf-8")
    return folder

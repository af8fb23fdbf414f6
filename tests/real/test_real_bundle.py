"""A bundle from real encoders is what they give one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from multi_models import m3
from small_models import bert
from sparse_models import splade, with_prompts

from engine import Bundle, Engine, parse
from engine.adapters.kinds.dense import DenseAdapter
from engine.adapters.kinds.sparse import SparseAdapter

TEXTS = ["a pilot light is the small flame", "", "\x00 🔥 zzz", "flame " * 500, "flame " * 170_000]
AXES = [{"name": "fire", "anchor": "Fire gives light."}, {"name": "water", "anchor": "Water flows."}]

Inputs = list[tuple[str, type]]


@pytest.fixture
def inputs(monkeypatch: pytest.MonkeyPatch) -> Inputs:
    """What each encoder was given: a `str`, or a `list` of token ids."""
    given: Inputs = []

    def watched(kind: type, name: str) -> None:
        encode = getattr(kind, name)

        def call(self: Any, texts: Any, **options: Any) -> Any:
            given.append((name, type(texts[0])))
            return encode(self, texts, **options)

        monkeypatch.setattr(kind, name, call)

    watched(DenseAdapter, "encode")
    watched(SparseAdapter, "encode_sparse")
    return given


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dense and a sparse model that read texts alike."""
    folder = tmp_path_factory.mktemp("pair")
    dense = bert(folder / "dense")
    return dense, like(dense, folder / "sparse")


def like(dense: Path, folder: Path) -> Path:
    """Write a SPLADE with the tokenizer of `dense` that reads half as much."""
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import SpladePooling, Transformer
    from transformers import AutoTokenizer, DistilBertConfig, DistilBertForMaskedLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(str(dense), model_max_length=64)
    sizes = {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "max_position_embeddings": 64}
    model = DistilBertForMaskedLM(DistilBertConfig(vocab_size=len(tokenizer), initializer_range=0.5, **sizes))
    model.save_pretrained(folder / "bare")
    tokenizer.save_pretrained(folder / "bare")
    modules = [Transformer(str(folder / "bare"), transformer_task="fill-mask"), SpladePooling(pooling_strategy="max")]
    SparseEncoder(modules=modules, device="cpu").save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"


def serving(**encoders: Any) -> Engine:
    axes = {} if "minilm" not in encoders else {"sema": {"kind": "axes", "base": "minilm", "axes": AXES}}
    return Engine(parse({"hardware": {"device": "cpu", "idle_timeout_seconds": 0}, "encoders": encoders | axes}))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    sparse = splade(tmp_path_factory.mktemp("bundle") / "splade")
    minilm = {"kind": "dense", "model": "builtin:all-MiniLM-L6-v2"}
    with serving(minilm=minilm, splade={"kind": "sparse", "model": str(sparse)}) as engine:
        yield engine


def agrees(engine: Engine, found: Bundle, text: str, task: str | None = "query") -> None:
    """Fail where a part differs from what its encoder gives alone."""
    [sparse] = engine.sparse().encode([text], task=task)
    assert found.dense is not None
    assert found.sparse is not None
    np.testing.assert_allclose(found.dense, engine.dense().encode([text], task=task)[0], atol=1e-5)
    assert found.sparse.tokens == sparse.tokens
    np.testing.assert_allclose(found.sparse.weights, sparse.weights, atol=1e-5)
    if found.axes is not None:
        np.testing.assert_allclose(found.axes, engine.axes().encode([text], task=task)[0], atol=1e-5)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_bundle_is_what_the_encoders_give_one_by_one(engine: Engine, text: str) -> None:
    agrees(engine, engine.bundle(text), text)


def test_axes_send_no_text_through_their_base_again(engine: Engine, inputs: Inputs) -> None:
    engine.bundle("first")
    inputs.clear()
    engine.bundle("second")
    assert [name for name, _ in inputs] == ["encode", "encode_sparse"]


def test_what_is_asked_for_first_in_a_bundle_loads_each_once(pair: tuple[Path, Path]) -> None:
    dense, sparse = pair
    with serving(
        minilm={"kind": "dense", "model": str(dense)}, splade={"kind": "sparse", "model": str(sparse)}
    ) as small:
        found = small.bundle("a flame")
        assert {view.name: view.loads for view in small.views()} == {"minilm": 1, "splade": 1, "sema": 1}
        assert found.revisions == {
            part: small.view(name).revision for part, name in found.encoders.items()
        }  # each that of the weights that it shows


@pytest.mark.parametrize("text", TEXTS[:4], ids=range(4))
def test_equal_tokenizers_share_the_ids_of_what_both_read(pair: tuple[Path, Path], inputs: Inputs, text: str) -> None:
    dense, sparse = pair
    with serving(
        minilm={"kind": "dense", "model": str(dense)}, splade={"kind": "sparse", "model": str(sparse)}
    ) as small:
        found = small.bundle(text)
        given = [kind for name, kind in inputs if name == "encode_sparse"]
        agrees(small, found, text)
    # None of an empty text, and not those that one of the two may not read.
    assert given == [list if 0 < len(text) < 100 else str]


@pytest.mark.parametrize("text", ["[CLS] a small flame", "a small flame [SEP]", "[SEP]", "a [SEP] flame"])
def test_special_tokens_in_a_text_are_read_as_each_encoder_reads_them_alone(
    pair: tuple[Path, Path], inputs: Inputs, text: str
) -> None:
    dense, sparse = pair
    with serving(
        minilm={"kind": "dense", "model": str(dense)}, splade={"kind": "sparse", "model": str(sparse)}
    ) as small:
        found = small.bundle(text)
        given = {kind for name, kind in inputs if name == "encode_sparse"}
        agrees(small, found, text)
    assert given == {list if text.startswith("a") and text.endswith("e") else str}


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("task", ["query", "passage", None])
def test_prompts_are_put_before_the_text_as_each_model_says(tmp_path: Path, include: bool, task: str | None) -> None:
    dense = bert(tmp_path / "dense")
    sparse = like(dense, tmp_path / "sparse")
    with_prompts(dense, {"query": "find: ", "passage": "text: "}, include=include)
    with serving(
        minilm={"kind": "dense", "model": str(dense)}, splade={"kind": "sparse", "model": str(sparse)}
    ) as small:
        agrees(small, small.bundle("a flame", task=task), "a flame", task)


def test_an_encoder_of_many_forms_gives_both_in_one_pass(tmp_path: Path) -> None:
    with serving(m3={"kind": "multi", "model": str(m3(tmp_path / "m3"))}) as small:
        found = small.bundle("a flame", top_k=4)
        [sparse] = small.sparse("m3").encode(["a flame"], top_k=4)
        assert found.sparse is not None
        assert found.dense is not None
        assert found.sparse.tokens == sparse.tokens
        np.testing.assert_allclose(found.sparse.weights, sparse.weights, atol=1e-5)
        np.testing.assert_allclose(found.dense, small.dense("m3").encode(["a flame"])[0], atol=1e-5)
        assert found.encoders == {"dense": "m3", "sparse": "m3"}

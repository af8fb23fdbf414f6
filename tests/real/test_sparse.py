"""Sparse encoders: what they answer is what sentence-transformers itself answers."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import broken_folders
import numpy as np
import pytest
from engines import TEXTS, ids_of, library_of
from small_models import Dtype, bert
from sparse_models import LONGEST, latents, splade, two_ways

from engine import Engine, InvalidInput, SparseProxy, SparseVector, State, Unavailable
from engine.adapters.kinds import sparse
from engine.operations.sparse import EncodeSparse

ALL = 10**6

Serve = Callable[..., Engine]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return splade(tmp_path_factory.mktemp("sparse") / "sparse")


def rows(vectors: tuple[SparseVector, ...], width: int) -> np.ndarray:
    """The vectors written out, float32 (n, width)."""
    found = np.zeros((len(vectors), width), dtype=np.float32)
    for row, vector in zip(found, vectors, strict=True):
        row[vector.indices] = vector.weights
    return found


def same(a: tuple[SparseVector, ...], b: tuple[SparseVector, ...]) -> bool:
    return all(
        np.array_equal(one.indices, other.indices) and np.array_equal(one.weights, other.weights)
        for one, other in zip(a, b, strict=True)
    )


def test_the_weights_are_the_librarys(serve: Serve, model: Path) -> None:
    wanted = library_of("sparse", model).encode(TEXTS).to_dense().numpy()
    found = serve("sparse", model).sparse("sparse").encode(TEXTS, top_k=ALL)
    assert np.allclose(rows(found, wanted.shape[1]), wanted, atol=1e-5)
    assert [len(vector) for vector in found] == np.count_nonzero(wanted, axis=1).tolist()
    assert {(v.indices.dtype.name, v.weights.dtype.name) for v in found} == {("int32", "float32")}


def test_the_tokens_are_those_that_the_library_decodes_heaviest_first(serve: Serve, model: Path) -> None:
    ours = library_of("sparse", model)
    wanted = ours.decode(ours.encode(TEXTS), top_k=5)
    found = serve("sparse", model).sparse("sparse").encode(TEXTS, top_k=5)
    for vector, pairs in zip(found, wanted, strict=True):
        assert len(vector) == 5
        assert list(vector.weights) == sorted(vector.weights, reverse=True)
        # A row that is no token of the tokenizer's is called by its number.
        assert [token for token in vector.tokens if token[0] != "<"] == [token for token, _ in pairs if token]
        assert vector.weights == pytest.approx([weight for _, weight in pairs], abs=1e-5)
    assert any(
        token.startswith("<")
        for vector in serve("sparse", model).sparse().encode(TEXTS, top_k=ALL)
        for token in vector.tokens
    )


def test_the_metadata_says_what_the_model_is(serve: Serve, model: Path) -> None:
    engine = serve("sparse", model)
    engine.load("sparse")
    width = library_of("sparse", model).encode("a").shape[0]
    assert engine.view("sparse").metadata == {"dimension": width, "max_tokens": LONGEST}


def test_logits_that_do_not_fit_at_once_are_made_in_parts(
    serve: Serve, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve("sparse", model).sparse("sparse")
    wanted = proxy.encode(TEXTS * 8, top_k=ALL)
    calls: list[int] = []
    whole = sparse.SparseAdapter._vectors

    def counted(self: sparse.SparseAdapter, weights: Any, count: int) -> list[SparseVector]:
        calls.append(len(weights))
        return whole(self, weights, count)

    monkeypatch.setattr(sparse, "_LOGITS_BYTES", 2 * 4 * 210 * LONGEST)
    monkeypatch.setattr(sparse.SparseAdapter, "_vectors", counted)
    found = proxy.encode(TEXTS * 8, top_k=ALL)
    assert sum(calls) == len(TEXTS) * 8
    assert calls[0] == 2
    assert np.allclose(rows(found, 210), rows(wanted, 210), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_says_nearly_the_same(serve: Serve, model: Path, dtype: Dtype) -> None:
    wanted = rows(serve("sparse", model).sparse("sparse").encode(TEXTS, top_k=ALL), 210)
    engine = serve("sparse", model, dtype=dtype)
    found = rows(engine.sparse("sparse").encode(TEXTS, top_k=ALL), 210)
    cosines = (wanted * found).sum(1) / np.linalg.norm(wanted, axis=1) / np.linalg.norm(found, axis=1)
    assert (cosines >= 0.999).all()
    assert str(engine.view("sparse").revision).endswith(dtype)


def test_a_task_puts_the_models_own_prompt_in_front(serve: Serve, tmp_path: Path) -> None:
    folder = splade(tmp_path / "model", prompts={"query": "query: ", "document": "gas: "})
    ours, proxy = library_of("sparse", folder), serve("sparse", folder).sparse("sparse")
    encode = {None: ours.encode, "query": ours.encode_query, "passage": ours.encode_document}
    found = {task: rows(proxy.encode(TEXTS, task=task, top_k=ALL), 210) for task in encode}
    for task, call in encode.items():
        wanted = call(TEXTS).to_dense().numpy()
        assert np.allclose(found[task][:, : wanted.shape[1]], wanted, atol=1e-5), task
    assert not np.allclose(found["query"], found["passage"], atol=1e-2)
    assert not np.allclose(found["query"], found[None], atol=1e-2)


@pytest.mark.parametrize("task", ["query", "passage"])
def test_queries_may_go_a_way_of_their_own(serve: Serve, tmp_path: Path, task: str) -> None:
    folder = two_ways(tmp_path / "model")
    ours, engine = library_of("sparse", folder), serve("sparse", folder)
    encode = ours.encode_query if task == "query" else ours.encode_document
    wanted = encode(TEXTS).to_dense().numpy()
    found = engine.sparse().encode(TEXTS, task=task, top_k=ALL)
    assert np.allclose(rows(found, wanted.shape[1]), wanted, atol=1e-5)
    ids = [ids_of(engine, "sparse", text, task) for text in TEXTS[2:]]
    found = engine.call("sparse", EncodeSparse(ids, task=task, top_k=ALL)).vectors
    assert np.allclose(rows(found, wanted.shape[1]), wanted[2:], atol=1e-5)


def test_latents_have_numbers_for_names(serve: Serve, tmp_path: Path) -> None:
    folder = latents(tmp_path / "model", bert(tmp_path / "dense"))
    wanted = library_of("sparse", folder).encode(TEXTS).to_dense().numpy()
    found = serve("sparse", folder).sparse("sparse").encode(TEXTS)
    assert np.allclose(rows(found, wanted.shape[1]), wanted, atol=1e-5)
    assert all(vector.tokens == tuple(map(str, vector.indices)) for vector in found)


def test_a_dense_model_is_refused_and_not_given_random_weights(serve: Serve, tmp_path: Path) -> None:
    engine = serve("sparse", bert(tmp_path / "dense"))
    with pytest.raises(Unavailable, match="no model of kind sparse") as caught:
        engine.sparse("sparse").encode(["a"])
    assert 'kind = "dense"' in (caught.value.next_step or "")
    assert engine.view("sparse").state is State.UNAVAILABLE


def test_token_ids_give_what_their_text_gives(serve: Serve, model: Path) -> None:
    engine = serve("sparse", model)
    texts = [text for text in TEXTS if text]
    ids = [ids_of(engine, "sparse", text) for text in texts]
    assert len(ids[2]) > LONGEST
    found = engine.call("sparse", EncodeSparse(ids))
    assert found.tokens == sum(min(len(one) + 2, LONGEST) for one in ids)
    wanted = engine.sparse().encode(texts)
    assert np.allclose(rows(found.vectors, 210), rows(wanted, 210), atol=1e-5)
    with pytest.raises(InvalidInput, match="another tokenizer"):
        engine.call("sparse", EncodeSparse([[10**6]]))


def test_stepping_down_and_coming_back_gives_the_same_bits(serve: Serve, model: Path) -> None:
    engine = serve("sparse", model)
    wanted = engine.sparse("sparse").encode(TEXTS)
    assert engine.offload("sparse").state is State.IN_RAM
    assert same(engine.sparse("sparse").encode(TEXTS), wanted)
    assert engine.view("sparse").loads == 1
    assert engine.unload("sparse").state is State.UNLOADED
    assert same(engine.sparse("sparse").encode(TEXTS), wanted)


def test_eight_threads_at_the_first_use_load_once(serve: Serve, model: Path) -> None:
    engine, barrier, found = serve("sparse", model), threading.Barrier(8), []

    def use() -> None:
        proxy: SparseProxy = engine.sparse("sparse")
        barrier.wait(10)
        found.append(proxy.encode(TEXTS[:2]))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 8
    assert all(same(one, found[0]) for one in found)
    assert engine.view("sparse").loads == 1


def test_a_megabyte_is_answered_as_its_beginning_and_many_texts_one_by_one(serve: Serve, model: Path) -> None:
    proxy = serve("sparse", model).sparse("sparse")
    long = "flame " * 170_000
    assert np.allclose(
        rows(proxy.encode([long, "x" * 10**6]), 210), rows(proxy.encode([long[:6000], "x" * 4000]), 210), atol=1e-5
    )
    assert len(proxy.encode(["flame"] * 2048, top_k=1)) == 2048
    with pytest.raises(InvalidInput, match="surrogates"):
        proxy.encode(["\ud800"])


@pytest.mark.parametrize("way", broken_folders.WAYS)
def test_a_broken_folder_fails_with_a_next_step_and_works_when_mended(
    serve: Serve, model: Path, tmp_path: Path, way: str
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(model, folder)
    broken_folders.WAYS[way](folder)
    engine = serve("sparse", folder)
    broken_folders.check(engine, "sparse", lambda: engine.sparse("sparse").encode(["a"]), model, folder)

"""Dense encoders: what they answer is what sentence-transformers itself answers."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import broken_folders
import numpy as np
import pytest
from engines import TEXTS, ids_of, library_of
from expected import Reference
from small_models import DIMENSION, Dtype, bert, xlm_roberta
from sparse_models import with_prompts

from engine import Engine, InvalidInput, State
from engine.operations.dense import Embed, Encoding

PROMPTS = {"query": "query: ", "passage": "a passage, ", "other": "?"}
LIMIT = 128  # tokens

Serve = Callable[..., Engine]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("dense") / "bert")


def encoding(engine: Engine, *inputs: Any, **options: Any) -> Encoding:
    """What the encoder makes of the inputs, its count of tokens included."""
    return engine.call("dense", Embed(inputs, **options))


def key_of(engine: Engine) -> str | None:
    key: str | None = engine.call("dense", lambda adapter: adapter.tokenizer_key)
    return key


def edit(file: Path, **values: Any) -> None:
    said = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**said, **values}), encoding="utf-8")


def test_minilm_says_what_the_library_says(serve: Serve, reference: Reference) -> None:
    engine = serve("dense", "builtin:all-MiniLM-L6-v2")
    assert reference.agrees(engine.dense("dense").encode(reference.texts))
    for task in ("query", "passage"):
        assert reference.agrees(engine.dense("dense").encode(reference.texts, task=task)), "it has no prompts"
    ids = [reference.bare_ids[reference.texts.index(text)] for text in reference.texts if text]
    assert [ids_of(engine, "dense", text) for text in reference.texts if text] == ids
    assert reference.agrees(encoding(engine, *ids).vectors, [text for text in reference.texts if text])
    assert encoding(engine, *reference.texts).tokens == sum(map(len, reference.ids))


@pytest.mark.parametrize("make", [bert, xlm_roberta])
def test_the_vectors_are_the_librarys(serve: Serve, make: Callable[..., Path], tmp_path: Path) -> None:
    folder = make(tmp_path / "model", dense=True)
    ours, engine = library_of("dense", folder), serve("dense", folder)
    found = engine.dense("dense").encode(TEXTS)
    assert found.dtype == np.float32
    assert np.allclose(found, ours.encode(TEXTS), atol=1e-5)
    assert encoding(engine, *TEXTS).tokens == int(ours.preprocess(TEXTS)["attention_mask"].sum())
    assert engine.view("dense").metadata == {"dimension": DIMENSION // 2, "max_tokens": LIMIT, "similarity": "cosine"}


@pytest.mark.parametrize("include", [True, False], ids=["pooled", "left out of the pooling"])
def test_a_task_puts_the_models_own_prompt_in_front(serve: Serve, tmp_path: Path, include: bool) -> None:
    folder = with_prompts(bert(tmp_path / "model"), PROMPTS, include=include)
    ours, engine = library_of("dense", folder), serve("dense", folder)
    wanted = {
        None: ours.encode(TEXTS),
        "query": ours.encode_query(TEXTS),
        "passage": ours.encode(TEXTS, prompt_name="passage"),
    }
    for task, vectors in wanted.items():
        found = encoding(engine, *TEXTS, task=task)
        assert np.allclose(found.vectors, vectors, atol=1e-5), task
        prompt = PROMPTS.get(task or "", "")
        assert found.tokens == int(ours.preprocess(TEXTS, prompt=prompt)["attention_mask"].sum()), task
        ids = [ids_of(engine, "dense", text, task) for text in TEXTS if text]
        assert np.allclose(encoding(engine, *ids, task=task).vectors, np.delete(vectors, 1, 0), atol=1e-5), task
    assert not np.allclose(wanted["query"], wanted["passage"], atol=1e-3)
    assert not np.allclose(wanted["query"], wanted[None], atol=1e-3)


@pytest.mark.parametrize(
    ("prompts", "wanted"),
    [
        ({"document": "d: ", "passage": "p: ", "corpus": "c: "}, "d: "),
        ({"document": "", "passage": "p: "}, "p: "),
        ({"corpus": "c: "}, "c: "),
        ({"query": "q: "}, ""),
        ({}, ""),
    ],
)
def test_a_passage_is_what_the_model_calls_document_passage_or_corpus(
    serve: Serve, tmp_path: Path, prompts: dict[str, str], wanted: str
) -> None:
    folder = with_prompts(bert(tmp_path / "model"), prompts)
    engine = serve("dense", folder)
    vectors = engine.dense("dense").encode(TEXTS, task="passage")
    assert np.allclose(vectors, library_of("dense", folder).encode(TEXTS, prompt=wanted), atol=1e-5)
    assert engine.call("dense", lambda adapter: adapter.prompt("passage")) == wanted


def test_the_default_prompt_is_for_texts_without_a_task(serve: Serve, tmp_path: Path) -> None:
    folder = with_prompts(bert(tmp_path / "model"), {"other": "other: "}, default="other")
    ours, proxy = library_of("dense", folder), serve("dense", folder).dense("dense")
    assert np.allclose(proxy.encode(TEXTS), ours.encode(TEXTS), atol=1e-5)
    assert np.allclose(proxy.encode(TEXTS, task="query"), ours.encode_query(TEXTS), atol=1e-5)
    assert not np.allclose(proxy.encode(TEXTS), proxy.encode(TEXTS, task="query"), atol=1e-3)


@pytest.mark.parametrize("side", ["right", "left"])
def test_of_a_megabyte_that_end_is_read_which_the_model_reads(serve: Serve, tmp_path: Path, side: str) -> None:
    folder = with_prompts(bert(tmp_path / "model"), PROMPTS)
    edit(folder / "tokenizer_config.json", truncation_side=side)
    ours, engine = library_of("dense", folder), serve("dense", folder)
    assert ours.tokenizer.truncation_side == side
    texts = ["begin " + "flame " * 170_000 + "end", "x" * 1_000_000]
    found = encoding(engine, *texts, task="query")
    # The library would cut all of it into tokens first.
    shorter = ["begin " + "flame " * 1000 + "end", "x" * 1000]
    assert np.allclose(found.vectors, ours.encode_query(shorter), atol=1e-5)
    assert found.tokens == int(ours.preprocess(shorter, prompt="query: ")["attention_mask"].sum())
    long = ids_of(engine, "dense", shorter[0], "query")
    assert np.allclose(encoding(engine, long, task="query").vectors, found.vectors[:1], atol=1e-5)


def test_dimensions_truncate_and_make_the_length_one_again(serve: Serve, model: Path) -> None:
    proxy = serve("dense", model).dense("dense")
    whole, short = proxy.encode(TEXTS), proxy.encode(TEXTS, dimensions=10)
    cut = whole[:, :10]
    assert np.allclose(short, cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-6)
    with pytest.raises(InvalidInput, match="has 64"):
        proxy.encode(TEXTS, dimensions=65)


def test_a_model_that_is_cut_by_its_own_settings_gives_as_much_for_texts_and_ids(serve: Serve, tmp_path: Path) -> None:
    folder = bert(tmp_path / "model")
    edit(folder / "config_sentence_transformers.json", truncate_dim=20)
    engine = serve("dense", folder)
    wanted = library_of("dense", folder).encode(TEXTS[:1])
    assert wanted.shape == (1, 20)
    assert np.allclose(engine.dense("dense").encode(TEXTS[:1]), wanted, atol=1e-5)
    assert np.allclose(encoding(engine, ids_of(engine, "dense", TEXTS[0])).vectors, wanted, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_says_nearly_the_same(serve: Serve, model: Path, dtype: Dtype) -> None:
    wanted, engine = serve("dense", model).dense("dense").encode(TEXTS), serve("dense", model, dtype=dtype)
    found = engine.dense("dense").encode(TEXTS)
    assert found.dtype == np.float32
    assert ((wanted * found).sum(1) / np.linalg.norm(found, axis=1) >= 0.999).all()
    assert str(engine.view("dense").revision).endswith(dtype)


def test_equal_tokenizers_have_equal_keys_whatever_the_model(serve: Serve, model: Path, tmp_path: Path) -> None:
    other = serve("dense", bert(tmp_path / "other", seed=1))
    other.dense("dense").encode(["truncated and padded", "first"])
    assert key_of(serve("dense", model)) == key_of(other) is not None
    assert key_of(serve("dense", xlm_roberta(tmp_path / "roberta"))) not in (None, key_of(other))
    cased = bert(tmp_path / "cased")
    edit(cased / "tokenizer_config.json", do_lower_case=False)
    assert key_of(serve("dense", cased)) not in (None, key_of(other))


def test_a_table_of_vectors_reads_texts_and_no_ids(serve: Serve, model: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    table = StaticEmbedding(library_of("dense", model).tokenizer, embedding_dim=16)
    folder = tmp_path / "static"
    SentenceTransformer(modules=[table], device="cpu").save_pretrained(str(folder), create_model_card=False)
    ours, engine = library_of("dense", folder), serve("dense", folder)
    assert np.allclose(engine.dense("dense").encode(TEXTS), ours.encode(TEXTS), atol=1e-5)
    assert engine.dense("dense").max_tokens is None
    assert key_of(engine) is None
    for use in (lambda: encoding(engine, [5, 6]), lambda: ids_of(engine, "dense", "a")):
        with pytest.raises(InvalidInput, match="no token ids"):
            use()


@pytest.mark.parametrize("ids", [[-1], [10**6], []], ids=["negative", "too large", "none"])
def test_ids_of_another_tokenizer_are_refused(serve: Serve, model: Path, ids: list[int]) -> None:
    engine = serve("dense", model)
    with pytest.raises(InvalidInput, match="another tokenizer"):
        encoding(engine, [5], ids)
    assert encoding(engine, [5]).vectors.shape == (1, DIMENSION)


def test_stepping_down_and_coming_back_gives_the_same_bits(serve: Serve, tmp_path: Path) -> None:
    engine = serve("dense", with_prompts(bert(tmp_path / "model"), PROMPTS))
    proxy = engine.dense("dense")
    wanted = proxy.encode(TEXTS, task="query")
    assert engine.offload("dense").state is State.IN_RAM
    assert np.array_equal(proxy.encode(TEXTS, task="query"), wanted)
    assert engine.view("dense").loads == 1
    assert engine.unload("dense").state is State.UNLOADED
    assert np.array_equal(proxy.encode(TEXTS, task="query"), wanted)


def test_eight_threads_at_the_first_use_load_once(serve: Serve, model: Path) -> None:
    engine, barrier, found = serve("dense", model), threading.Barrier(8), []

    def use() -> None:
        proxy = engine.dense("dense")
        barrier.wait(10)
        found.append(proxy.encode(TEXTS[:2]))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 8
    assert all(np.array_equal(one, found[0]) for one in found)
    assert engine.view("dense").loads == 1


@pytest.mark.parametrize("way", broken_folders.WAYS)
def test_a_broken_folder_fails_with_a_next_step_and_works_when_mended(
    serve: Serve, model: Path, tmp_path: Path, way: str
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(model, folder)
    broken_folders.WAYS[way](folder)
    engine = serve("dense", folder)
    broken_folders.check(engine, "dense", lambda: engine.dense("dense").encode(["a"]), model, folder)

"""Rerankers of real architecture: the scores are those of `CrossEncoder`, whatever the batch and the rung."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import engines
import numpy as np
import pytest
from pair_models import DAMAGES, NLI, cross_encoder, deberta, headless, roberta

from engine import LoadFailed, State, Unavailable

QUERY = "What is a pilot light?"
DOCUMENTS = [
    "The small flame that stays lit.",
    "",
    "Gas",
    "Nothing of the kind. " * 30,
    "nul\0and ünïcödé 🔥",
    "The small flame that stays lit!",
]

Make = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("own_cache")

engine_of = partial(engines.engine_of, "rerank")
"""An engine with one reranker for each keyword: its folder or its settings."""


def directly(folder: Path, query: str, documents: list[str]) -> np.ndarray:
    """The logits that sentence-transformers gives, (n,) or (n, labels)."""
    from torch import nn

    model = engines.library_of("rerank", folder)
    return model.predict([(query, document) for document in documents], activation_fn=nn.Identity())


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


@pytest.mark.parametrize("make", [cross_encoder, roberta])
def test_a_single_logit_is_scored_by_its_sigmoid(make: Make, tmp_path: Path) -> None:
    folder = make(tmp_path / "model")
    with engine_of(one=folder) as engine:
        documents = DOCUMENTS if make is cross_encoder else DOCUMENTS[:3]
        scores = engine.rerank().score(QUERY, documents)
        assert scores.dtype == np.float32
        assert np.ptp(scores) > 0.1, "the model tells documents apart"
        np.testing.assert_allclose(scores, sigmoid(directly(folder, QUERY, documents)), atol=1e-5)


def test_a_single_deberta_logit_is_scored_without_a_limit_in_its_tokenizer(tmp_path: Path) -> None:
    folder = deberta(tmp_path / "model", labels=("LABEL_0",))
    with engine_of(one=folder) as engine:
        scores = engine.rerank().score(QUERY, [*DOCUMENTS, "long " * 1000])
        np.testing.assert_allclose(scores, sigmoid(directly(folder, QUERY, [*DOCUMENTS, "long " * 1000])), atol=1e-5)
        assert engine.rerank().max_tokens == 512


@pytest.mark.parametrize(
    ("labels", "relevant"),
    [(("LABEL_0", "LABEL_1"), 1), (("irrelevant", "relevant"), 1), (("Positive", "Negative"), 0)],
)
def test_two_labels_are_scored_by_the_softmax_of_the_relevant_one(
    labels: tuple[str, ...], relevant: int, tmp_path: Path
) -> None:
    folder = cross_encoder(tmp_path / "model", labels=labels)
    with engine_of(two=folder) as engine:
        powers = np.exp(directly(folder, QUERY, DOCUMENTS))
        expected = powers[:, relevant] / powers.sum(axis=1)
        np.testing.assert_allclose(engine.rerank().score(QUERY, DOCUMENTS), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("id2label", "relevant"),
    [
        ({"1": "irrelevant", "2": "relevant"}, 1),
        ({"1": "relevant", "2": "irrelevant"}, 0),
        ({"0": "yes", "1": "yes"}, 1),
    ],
)
def test_two_labels_are_told_apart_by_their_position(id2label: dict[str, str], relevant: int, tmp_path: Path) -> None:
    folder = cross_encoder(tmp_path / "model", labels=("LABEL_0", "LABEL_1"))
    powers = np.exp(directly(folder, QUERY, DOCUMENTS))
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text(encoding="utf-8")) | {"id2label": id2label}))
    with engine_of(two=folder) as engine:
        found = engine.rerank().score(QUERY, DOCUMENTS)
        np.testing.assert_allclose(found, powers[:, relevant] / powers.sum(axis=1), atol=1e-5)
        assert engine.view("two").note


def test_a_regression_is_scored_by_its_own_numbers(tmp_path: Path) -> None:
    folder = cross_encoder(tmp_path / "model", problem_type="regression")
    logits = directly(folder, QUERY, DOCUMENTS)
    assert logits.max() > 1
    with engine_of(one=folder) as engine:
        proxy = engine.rerank()
        np.testing.assert_allclose(proxy.score(QUERY, DOCUMENTS), logits, atol=1e-5)
        assert [index for index, _ in proxy.re_rank(QUERY, DOCUMENTS)] == np.argsort(-logits, kind="stable").tolist()
        found = proxy.splice(QUERY, [DOCUMENTS], threshold=0.5, min_kept=0)
        assert found.kept == (tuple(np.flatnonzero(logits >= 0.5).tolist()),)
        assert "no probabilities" in (engine.view("one").note or "")


def test_a_regression_of_several_numbers_is_no_reranker(tmp_path: Path) -> None:
    folder = cross_encoder(tmp_path / "model", labels=("a", "b"), problem_type="regression")
    with engine_of(one=folder) as engine, pytest.raises(Unavailable, match="regression of 2 numbers") as caught:
        engine.rerank().score(QUERY, DOCUMENTS)
    assert 'kind = "classify"' in (caught.value.next_step or "")


@pytest.mark.parametrize(
    "config",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
    ],
)
def test_a_model_that_names_another_activation_is_scored_by_the_sigmoid_all_the_same(
    config: dict[str, Any], tmp_path: Path
) -> None:
    from engine.operations.rerank import Score

    folder = cross_encoder(tmp_path / "model", **config)
    logits = directly(folder, QUERY, DOCUMENTS)
    with engine_of(one=folder) as engine:
        found = engine.call("one", Score(QUERY, DOCUMENTS))
        np.testing.assert_allclose(found.scores, sigmoid(logits), atol=1e-5)
        np.testing.assert_allclose(found.raw, logits, atol=1e-5)


def test_one_by_one_and_in_batches_sorted_by_length_are_the_same(tmp_path: Path) -> None:
    documents = [f"{index} " + "flame " * (index * 7 % 20) for index in range(70)]
    with engine_of(one=cross_encoder(tmp_path / "model")) as engine:
        proxy = engine.rerank()
        together = proxy.score(QUERY, documents)
        alone = np.concatenate([proxy.score(QUERY, [document]) for document in documents])
        np.testing.assert_allclose(together, alone, atol=1e-5)
        best = proxy.re_rank(QUERY, documents, k=5)
        assert [index for index, _ in best] == np.argsort(-together, kind="stable")[:5].tolist()


def test_splice_scores_each_fragment_as_it_would_be_scored_alone(tmp_path: Path) -> None:
    groups = [DOCUMENTS[:3], [], DOCUMENTS[3:]]
    with engine_of(one=cross_encoder(tmp_path / "model")) as engine:
        proxy = engine.rerank()
        flat = proxy.score(QUERY, DOCUMENTS)
        found = proxy.splice(QUERY, groups, threshold=float(np.median(flat)), min_kept=1)
        np.testing.assert_allclose(np.concatenate(found.scores), flat, atol=1e-5)
        kept = [DOCUMENTS.index(group[index]) for group, best in zip(groups, found.kept, strict=True) for index in best]
        assert set(kept) >= set(np.flatnonzero(flat >= np.median(flat)))


def test_the_tokens_are_those_that_the_model_read(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from engine.operations.rerank import Score

    folder = cross_encoder(tmp_path / "model")
    encoded = AutoTokenizer.from_pretrained(folder)(
        [QUERY] * len(DOCUMENTS), DOCUMENTS, truncation=True, max_length=128
    )
    with engine_of(one=folder) as engine:
        assert engine.call("one", Score(QUERY, DOCUMENTS)).tokens == sum(map(len, encoded["input_ids"]))


def test_a_megabyte_is_scored_as_its_beginning_and_holds_nobody_up(tmp_path: Path) -> None:
    folder = cross_encoder(tmp_path / "model")
    long = "some words and more of them " * 40_000
    with engine_of(one=folder) as engine:
        proxy = engine.rerank()
        np.testing.assert_allclose(proxy.score(QUERY, [long])[0], proxy.score(QUERY, [long[:2000]])[0], atol=1e-5)
        np.testing.assert_allclose(proxy.score(long, ["x"])[0], proxy.score(long[:2000], ["x"])[0], atol=1e-5)
        np.testing.assert_allclose(proxy.score(long, [long])[0], proxy.score(long[:2000], [long[:2000]])[0], atol=1e-5)


@pytest.mark.parametrize(
    ("make", "limit"), [(cross_encoder, 128), (lambda folder: cross_encoder(folder, longest=None), 130), (roberta, 64)]
)
def test_no_more_is_read_than_the_model_has_positions(make: Make, limit: int, tmp_path: Path) -> None:
    with engine_of(one=make(tmp_path / "model")) as engine:
        assert np.isfinite(engine.rerank().score(QUERY, ["x" + " y" * 500])).all()
        assert engine.rerank().max_tokens == limit
        assert engine.view("one").metadata == {"max_tokens": limit}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_gives_the_same_direction(dtype: str, tmp_path: Path) -> None:
    folder = cross_encoder(tmp_path / "model")
    with engine_of(full=folder, half={"model": str(folder), "dtype": dtype}) as engine:
        full, half = (engine.rerank(name).score(QUERY, DOCUMENTS) for name in ("full", "half"))
        assert half.dtype == np.float32
        assert full @ half / np.linalg.norm(full) / np.linalg.norm(half) > 0.999
        assert not np.array_equal(full, half)


def test_a_step_down_and_back_gives_equal_bits(tmp_path: Path) -> None:
    with engine_of(one=cross_encoder(tmp_path / "model")) as engine:
        proxy = engine.rerank()
        before = proxy.score(QUERY, DOCUMENTS)
        for step, state in ((engine.offload, State.IN_RAM), (engine.unload, State.UNLOADED)):
            assert step("one").result == "done"
            assert proxy.peek().state is state
            np.testing.assert_array_equal(proxy.score(QUERY, DOCUMENTS), before)
        assert proxy.peek().loads == 2


def test_eight_threads_at_the_first_use_load_once(tmp_path: Path) -> None:
    with engine_of(one=cross_encoder(tmp_path / "model")) as engine:
        start, found = threading.Barrier(8), []

        def use() -> None:
            start.wait()
            found.append(engine.rerank().score(QUERY, DOCUMENTS))

        threads = [threading.Thread(target=use) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8
        assert all(np.array_equal(scores, found[0]) for scores in found)
        assert engine.view("one").loads == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: cross_encoder(folder, labels=NLI), 'kind = "classify"'),
        (headless, 'kind = "dense"'),
    ],
)
def test_a_model_that_is_no_reranker_is_unavailable_with_a_next_step(make: Make, message: str, tmp_path: Path) -> None:
    with engine_of(wrong=make(tmp_path / "wrong")) as engine:
        with pytest.raises(Unavailable, match=message) as caught:
            engine.rerank().score(QUERY, DOCUMENTS)
        assert caught.value.next_step
        assert engine.view("wrong").state is State.UNAVAILABLE


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_reranker_fails_with_a_next_step_and_the_others_work(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    torn = cross_encoder(tmp_path / "torn")
    damage(torn)
    with engine_of(torn=torn, whole=cross_encoder(tmp_path / "whole")) as engine:
        with pytest.raises((LoadFailed, Unavailable)) as caught:
            engine.rerank("torn").score(QUERY, DOCUMENTS)
        assert caught.value.next_step
        view = engine.view("torn")
        assert view.state in (State.FAILED, State.UNAVAILABLE)
        assert view.bytes_in_ram == view.bytes_on_device == 0
        assert len(engine.rerank("whole").score(QUERY, DOCUMENTS)) == len(DOCUMENTS)

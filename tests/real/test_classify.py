"""Classifiers of real architecture: the probabilities are those of the model called directly, and of the pipeline."""

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

from engine import InvalidInput, LoadFailed, State, Unavailable

TEXTS = ["A flame that stays lit.", "", "Gas", "Nothing of the kind. " * 40, "nul\0and ünïcödé 🔥", "A flame!"]
PAIRS = list(zip(TEXTS, reversed(TEXTS), strict=True))
CANDIDATES = ["warmth", "cold weather", "bookkeeping"]

pytestmark = pytest.mark.usefixtures("own_cache")

engine_of = partial(engines.engine_of, "classify")
"""An engine with one classifier for each keyword: its folder or its settings."""


def directly(folder: Path, inputs: list[Any], limit: int) -> np.ndarray:
    """The logits of the model for each input by itself, (n, labels)."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    for item in inputs:
        # In lists: an empty second text that stands by itself counts as none.
        columns = [[text] for text in ((item,) if isinstance(item, str) else item)]
        features = tokenizer(*columns, truncation=True, max_length=limit, return_tensors="pt")
        with torch.inference_mode():
            rows.append(model(**features).logits[0].numpy())
    return np.stack(rows)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("inputs", [PAIRS, TEXTS], ids=["pairs", "texts"])
@pytest.mark.parametrize(
    ("make", "limit"),
    [(deberta, 512), (lambda folder: cross_encoder(folder, labels=NLI), 128)],
    ids=["deberta", "bert"],
)
def test_the_probabilities_are_the_softmax_of_the_models_own_logits(
    make: Callable[[Path], Path], limit: int, inputs: Any, tmp_path: Path
) -> None:
    folder = make(tmp_path / "model")
    with engine_of(nli=folder) as engine:
        found = engine.classify().classify(inputs)
        logits = directly(folder, inputs, limit)
        assert found.labels == NLI
        assert found.probabilities.dtype == np.float32
        assert np.ptp(found.probabilities, axis=0).max() > 0.1, "the model tells inputs apart"
        np.testing.assert_allclose(found.logits, logits, atol=1e-4, rtol=1e-5)
        np.testing.assert_allclose(found.probabilities, softmax(logits), atol=1e-5)


@pytest.mark.parametrize(
    ("labels", "config"),
    [(NLI, {"problem_type": "multi_label_classification"}), (("toxic",), {}), (("toxic",), {"problem_type": None})],
)
def test_labels_that_go_together_and_a_single_one_get_a_sigmoid_each(
    labels: tuple[str, ...], config: dict[str, Any], tmp_path: Path
) -> None:
    folder = cross_encoder(tmp_path / "model", labels=labels, **config)
    with engine_of(one=folder) as engine:
        found = engine.classify().classify(TEXTS)
        expected = 1 / (1 + np.exp(-directly(folder, TEXTS, 128).astype(np.float64)))
        np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
        assert found.labels == labels


@pytest.mark.parametrize("labels", [NLI, ("contradiction", "entailment", "neutral"), ("ENTAILMENT", "not_entailment")])
def test_zero_shot_is_that_of_the_pipeline(labels: tuple[str, ...], tmp_path: Path) -> None:
    from transformers import pipeline

    folder = cross_encoder(tmp_path / "model", labels=labels)
    theirs = pipeline("zero-shot-classification", model=str(folder), device="cpu")
    texts, template = [text for text in TEXTS if text], "It is about {}."
    with engine_of(nli=folder) as engine:
        for candidates, multi_label in ((CANDIDATES, False), (CANDIDATES, True), (CANDIDATES[:1], False)):
            rows = theirs(texts, candidate_labels=candidates, multi_label=multi_label, hypothesis_template=template)
            scores = [dict(zip(row["labels"], row["scores"], strict=True)) for row in rows]
            found = engine.classify().zero_shot(texts, candidates, template=template, multi_label=multi_label)
            assert found.labels == tuple(candidates)
            expected = [[row[name] for name in candidates] for row in scores]
            np.testing.assert_allclose(found.probabilities, expected, atol=1e-5)


@pytest.mark.parametrize("labels", [("LABEL_0",), ("helpful", "polite", "short")])
def test_a_regression_answers_its_own_numbers_and_no_probabilities(labels: tuple[str, ...], tmp_path: Path) -> None:
    folder = cross_encoder(tmp_path / "model", labels=labels, problem_type="regression")
    with engine_of(one=folder) as engine:
        found = engine.classify().classify(TEXTS)
        assert found.probabilities is None
        assert found.labels == labels
        np.testing.assert_allclose(found.logits, directly(folder, TEXTS, 128), atol=1e-4, rtol=1e-5)
        view = engine.view("one")
        assert view.metadata["regression"] is True
        assert "regression" in (view.note or "")


@pytest.mark.parametrize(
    ("id2label", "names", "note"),
    [
        ({"1": "bad", "2": "so-so", "3": "good"}, ("bad", "so-so", "good"), "1, 2, 3 and not 0 to 2"),
        ({"7": "good", "0": "bad", "2": "so-so"}, ("bad", "so-so", "good"), "0, 2, 7 and not 0 to 2"),
        ({"0": "n", "1": "n", "2": "p"}, ("n [0]", "n [1]", "p"), "called n"),
        ({"0": "n", "1": "n [0]", "2": "n"}, ("n [0] [0]", "n [0] [1]", "n [2]"), "called n"),
        ({"2": "p", "1": "o", "0": "n"}, ("n", "o", "p"), None),
    ],
)
def test_the_probabilities_are_by_position_whatever_the_labels_are_called(
    id2label: dict[str, str], names: tuple[str, ...], note: str | None, tmp_path: Path
) -> None:
    folder = cross_encoder(tmp_path / "model", labels=NLI)
    logits = directly(folder, TEXTS, 128)
    rewrite(folder, id2label=id2label)
    with engine_of(one=folder) as engine:
        found = engine.classify().classify(TEXTS)
        assert found.labels == engine.classify().labels == names
        np.testing.assert_allclose(found.probabilities, softmax(logits), atol=1e-5)
        assert (note in (engine.view("one").note or "")) if note else engine.view("one").note is None


@pytest.mark.parametrize("id2label", [{"neg": "0", "pos": "1"}, ["neg", "pos"], {"0.0": "neg", "1.0": "pos"}, 7])
def test_labels_without_numbers_are_unavailable_with_what_to_write(id2label: Any, tmp_path: Path) -> None:
    folder = cross_encoder(tmp_path / "model", labels=("neg", "pos"))
    rewrite(folder, id2label=id2label)
    with engine_of(one=folder) as engine:
        with pytest.raises(Unavailable, match="does not number its labels") as caught:
            engine.classify().classify(TEXTS)
        assert "id2label" in (caught.value.next_step or "")


def rewrite(folder: Path, **values: Any) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text(encoding="utf-8")) | values), encoding="utf-8")


def test_zero_shot_needs_a_label_for_entailment(tmp_path: Path) -> None:
    folder = cross_encoder(tmp_path / "model", labels=("happy", "sad"))
    with engine_of(moods=folder) as engine:
        with pytest.raises(InvalidInput, match="happy, sad") as caught:
            engine.classify().zero_shot(TEXTS, CANDIDATES)
        assert caught.value.next_step
        assert engine.view("moods").state is State.ON_DEVICE


def test_one_by_one_and_in_batches_sorted_by_length_are_the_same(tmp_path: Path) -> None:
    texts = [f"{index} " + "flame " * (index * 7 % 20) for index in range(70)]
    with engine_of(nli=deberta(tmp_path / "model")) as engine:
        proxy = engine.classify()
        together = proxy.classify(texts).probabilities
        alone = np.concatenate([proxy.classify([text]).probabilities for text in texts])
        np.testing.assert_allclose(together, alone, atol=1e-5)


def test_labels_limits_and_tokens_are_the_models_own(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = deberta(tmp_path / "model")
    encoded = AutoTokenizer.from_pretrained(folder)(
        [one for one, _ in PAIRS], [other for _, other in PAIRS], truncation=True, max_length=512
    )
    with engine_of(nli=folder, short=roberta(tmp_path / "short", labels=NLI)) as engine:
        proxy = engine.classify()
        assert (proxy.labels, proxy.max_tokens) == (NLI, 512)
        assert proxy.classify(PAIRS).tokens == sum(map(len, encoded["input_ids"]))
        assert engine.view("nli").metadata == {"labels": [*NLI], "max_tokens": 512}
        assert engine.classify("short").max_tokens == 64
        assert np.isfinite(engine.classify("short").classify(["x" + " y" * 500]).probabilities).all()


def test_a_megabyte_is_classified_as_its_beginning_and_holds_nobody_up(tmp_path: Path) -> None:
    long = "some words and more of them " * 40_000
    with engine_of(nli=deberta(tmp_path / "model")) as engine:
        proxy = engine.classify()
        for inputs, beginnings in (([long], [long[:8000]]), ([("x", long)], [("x", long[:8000])])):
            found, expected = proxy.classify(inputs), proxy.classify(beginnings)  # type: ignore[arg-type]
            np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
        assert proxy.zero_shot([long], [f"label {index}" for index in range(5)]).probabilities.shape == (1, 5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_gives_the_same_direction(dtype: str, tmp_path: Path) -> None:
    folder = deberta(tmp_path / "model", spread=0.1)
    with engine_of(full=folder, half={"model": str(folder), "dtype": dtype}) as engine:
        full, half = (engine.classify(name).classify(PAIRS).probabilities for name in ("full", "half"))
        norms = np.linalg.norm(full, axis=1) * np.linalg.norm(half, axis=1)
        assert ((full * half).sum(axis=1) / norms > 0.999).all()
        assert not np.array_equal(full, half)


def test_a_step_down_and_back_gives_equal_bits(tmp_path: Path) -> None:
    with engine_of(nli=deberta(tmp_path / "model")) as engine:
        proxy = engine.classify()
        before = proxy.classify(PAIRS).probabilities
        for step, state in ((engine.offload, State.IN_RAM), (engine.unload, State.UNLOADED)):
            assert step("nli").result == "done"
            assert proxy.peek().state is state
            np.testing.assert_array_equal(proxy.classify(PAIRS).probabilities, before)
        assert proxy.peek().loads == 2


def test_eight_threads_at_the_first_use_load_once(tmp_path: Path) -> None:
    with engine_of(nli=deberta(tmp_path / "model")) as engine:
        start, found = threading.Barrier(8), []

        def use() -> None:
            start.wait()
            found.append(engine.classify().classify(PAIRS).probabilities)

        threads = [threading.Thread(target=use) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8
        assert all(np.array_equal(rows, found[0]) for rows in found)
        assert engine.view("nli").loads == 1


def test_a_model_without_a_head_is_unavailable_with_a_next_step(tmp_path: Path) -> None:
    with engine_of(wrong=headless(tmp_path / "wrong")) as engine:
        with pytest.raises(Unavailable, match='kind = "dense"') as caught:
            engine.classify().classify(TEXTS)
        assert caught.value.next_step
        assert engine.view("wrong").state is State.UNAVAILABLE


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_classifier_fails_with_a_next_step_and_the_others_work(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    torn = deberta(tmp_path / "torn")
    damage(torn)
    with engine_of(torn=torn, whole=deberta(tmp_path / "whole")) as engine:
        with pytest.raises((LoadFailed, Unavailable)) as caught:
            engine.classify("torn").classify(TEXTS)
        assert caught.value.next_step
        view = engine.view("torn")
        assert view.state in (State.FAILED, State.UNAVAILABLE)
        assert view.bytes_in_ram == view.bytes_on_device == 0
        assert len(engine.classify("whole").classify(TEXTS).probabilities) == len(TEXTS)

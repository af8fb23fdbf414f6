"""Eight folders against every kind of encoder: the right result, or the right kind in the error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_models import adapter, as_reranker, chat_model
from engines import engine_of, library_of
from image_text_models import image_text_model
from pair_models import cross_encoder, deberta, masked
from small_models import bert
from sparse_models import splade

from engine import Engine, State, Unavailable, parse
from engine.adapters.base import torch_module
from engine.adapters.kinds.dense import DenseAdapter
from engine.devices.placement import CPU
from engine.settings.config import EncoderConfig

TEXTS = ["a pilot light", "the small flame"]
KINDS = ("dense", "sparse", "multi", "rerank", "classify", "image_text", "tag")
FOLDERS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "bert": (bert, 'kind = "dense"'),
    "reranker": (cross_encoder, 'kind = "rerank"'),
    "classifier": (deberta, 'kind = "classify"'),
    "splade": (splade, 'kind = "sparse"'),
    "mlm": (masked, 'kind = "dense"'),
    "llm": (chat_model, "chat model"),
    "clip": (lambda folder: image_text_model(folder, "clip"), 'kind = "image_text"'),
    "adapter": (adapter, "BAAI/bge-small-en"),
}
"""Folder -> its maker, and the words that an error for another kind must hold."""


def _probabilities(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    features = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = AutoModelForSequenceClassification.from_pretrained(folder)(**features).logits
    return (logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)).numpy()


def _text_features(folder: Path) -> Any:
    import torch
    from transformers import AutoModel, AutoTokenizer

    features = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        vectors = AutoModel.from_pretrained(folder).get_text_features(**features).pooler_output
    return torch.nn.functional.normalize(vectors, dim=-1).numpy()


RIGHT: dict[tuple[str, str], Callable[[Path], Any]] = {
    ("bert", "dense"): lambda folder: library_of("dense", folder).encode(TEXTS),
    ("mlm", "dense"): lambda folder: library_of("dense", folder).encode(TEXTS),
    ("reranker", "rerank"): lambda folder: library_of("rerank", folder).predict([(TEXTS[0], text) for text in TEXTS]),
    ("reranker", "classify"): _probabilities,
    ("classifier", "classify"): _probabilities,
    ("splade", "sparse"): lambda folder: library_of("sparse", folder).encode(TEXTS).to_dense().numpy(),
    ("clip", "image_text"): _text_features,
}
"""Folder and kind -> the values of the library; no other pair may answer."""


def _rows(vectors: Any, width: int) -> Any:
    rows = np.zeros((len(vectors), width), np.float32)
    for row, vector in zip(rows, vectors, strict=True):
        row[vector.indices] = vector.weights
    return rows


def use(engine: Engine, name: str, kind: str, width: int = 0) -> Any:
    """Ask the encoder for its result for TEXTS."""
    match kind:
        case "dense":
            return engine.dense(name).encode(TEXTS)
        case "sparse":
            return _rows(engine.sparse(name).encode(TEXTS, top_k=1000), width)
        case "multi":
            return engine.multi(name).encode(TEXTS)
        case "rerank":
            return engine.rerank(name).score(TEXTS[0], TEXTS)
        case "classify":
            return engine.classify(name).classify(TEXTS).probabilities
        case "image_text":
            return engine.image_text(name).encode_texts(TEXTS)
    return engine.tag(name).tag(TEXTS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("folders")
    return {name: make(place / name) for name, (make, _) in FOLDERS.items()}


@pytest.fixture(scope="module")
def engine(folders: dict[str, Path]) -> Iterator[Engine]:
    encoders = {
        f"{folder}-{kind}": {"kind": kind, "model": str(path)} for folder, path in folders.items() for kind in KINDS
    }
    with Engine(parse({"hardware": {"device": "cpu", "idle_timeout_seconds": 0}, "encoders": encoders})) as engine:
        yield engine


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_gives_the_right_result_or_names_the_right_kind(
    engine: Engine, folders: dict[str, Path], folder: str, kind: str
) -> None:
    name = f"{folder}-{kind}"
    component = f"{name}.text" if kind == "image_text" else name
    if (folder, kind) in RIGHT:
        wanted = np.asarray(RIGHT[folder, kind](folders[folder]))
        np.testing.assert_allclose(use(engine, name, kind, wanted.shape[-1]), wanted, atol=1e-5)
        note = engine.view(component).note or ""
        assert ("modules.json" in note) is (folder == "mlm"), "only for one of them something had to be assumed"
        return
    with pytest.raises(Unavailable) as caught:
        use(engine, name, kind)
    assert FOLDERS[folder][1] in str(caught.value)
    view = engine.view(component)
    assert (view.state, view.loads) == (State.UNAVAILABLE, 0)


def test_a_reranker_that_was_made_of_a_chat_model_scores_as_the_library_does(tmp_path: Path) -> None:
    folder = as_reranker(tmp_path / "reranker", chat_model(tmp_path / "chat"))
    texts = ["pilot light", "flame", "query pilot light flame"]
    with engine_of("rerank", one=folder) as engine:
        scores = engine.rerank("one").score("light", texts)
        assert engine.view("one").note is None, "it has no labels of which one could be taken for another"
    wanted = library_of("rerank", folder).predict([("light", text) for text in texts])
    np.testing.assert_allclose(scores, wanted, atol=1e-4)
    assert np.ptp(wanted) > 0.01


def test_two_answers_of_one_token_make_no_reranker(tmp_path: Path) -> None:
    folder = as_reranker(tmp_path / "reranker", chat_model(tmp_path / "chat"))
    tokens = {"true_token_id": 1, "false_token_id": 1}
    (folder / "1_LogitScore" / "config.json").write_text(json.dumps(tokens), encoding="utf-8")
    with engine_of("rerank", one=folder) as engine, pytest.raises(Unavailable, match="all documents are alike"):
        engine.rerank("one").score("light", ["flame"])


def test_an_embedder_over_a_causal_model_is_dense_because_its_modules_say_so(tmp_path: Path) -> None:
    bare = chat_model(tmp_path / "bare", bare=True)
    library_of("dense", bare).save_pretrained(str(tmp_path / "saved"))
    with engine_of("dense", bare=bare, saved=tmp_path / "saved") as engine:
        np.testing.assert_allclose(engine.dense("bare").encode(TEXTS), engine.dense("saved").encode(TEXTS), atol=1e-6)
        assert "modules.json" in (engine.view("bare").note or "")
        assert engine.view("saved").note is None


def test_an_adapter_beside_a_whole_model_is_not_left_out_in_silence(tmp_path: Path) -> None:
    folder = adapter(bert(tmp_path / "model"))
    with engine_of("dense", one=folder) as engine:
        with pytest.raises(Unavailable, match="peft"):
            engine.dense("one").encode(TEXTS)
        (folder / "adapter_config.json").unlink()
        (folder / "adapter_model.safetensors").unlink()
        assert engine.dense("one").encode(TEXTS).shape == (2, 64), "a mended folder serves at once"


def test_two_labels_of_which_none_says_relevant_are_told_in_the_row(tmp_path: Path) -> None:
    plain = cross_encoder(tmp_path / "plain", labels=("LABEL_0", "LABEL_1"))
    named = cross_encoder(tmp_path / "named", labels=("yes", "no"))
    with engine_of("rerank", plain=plain, named=named) as engine:
        for name in ("plain", "named"):
            engine.rerank(name).score("a", TEXTS)
        assert "second" in (engine.view("plain").note or "")
        assert engine.view("named").note is None


def _remove(*names: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for name in names:
            shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()

    return damage


def _act_on_its_own(folder: Path) -> None:
    config = folder / "2_Dense" / "config.json"
    said = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**said, "activation_function": "own.Act"}), encoding="utf-8")


def _tear(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(b"\xff{") and None


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_remove("tokenizer.json"), "tokenizer.json"),
        (_remove("tokenizer.json", "tokenizer_config.json"), "tokenizer.json"),
        (_remove("config.json"), "lacks config.json"),
        (_remove("1_Pooling"), "lacks 1_Pooling/config.json"),
        (_remove("2_Dense"), "lacks 2_Dense/config.json"),
        (_remove("2_Dense/model.safetensors"), "lacks 2_Dense/model.safetensors"),
        (_remove("modules.json"), "Put its modules.json there"),
        (_remove("config.json", "modules.json"), "no config.json"),
        (_tear("modules.json"), "modules.json cannot be read"),
        (_tear("config.json"), "config.json cannot be read"),
        (_act_on_its_own, "trust_remote_code = true"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_would_be_guessed_is_named_and_its_return_mends_the_encoder(
    tmp_path: Path, damage: Callable[[Path], None], told: str
) -> None:
    whole = bert(tmp_path / "whole", dense=True)
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    damage(folder)
    with engine_of("dense", one=folder) as engine:
        with pytest.raises(Unavailable) as caught:
            engine.dense("one").encode(TEXTS)
        assert told in str(caught.value)
        assert engine.view("one").state is State.UNAVAILABLE
        shutil.copytree(whole, folder, dirs_exist_ok=True)
        assert engine.dense("one").encode(TEXTS).shape == (2, 32)


@pytest.mark.parametrize("missing", ["config_sentence_transformers.json", "1_SpladePooling"])
def test_a_sparse_encoder_never_gets_another_pooling_than_its_own(tmp_path: Path, missing: str) -> None:
    folder = splade(tmp_path / "model")
    _remove(missing)(folder)
    with engine_of("sparse", one=folder) as engine, pytest.raises(Unavailable, match=missing):
        engine.sparse("one").encode(TEXTS)


def test_a_model_of_the_hub_is_judged_before_its_weights_are_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = chat_model(tmp_path / "chat")
    monkeypatch.setattr(torch_module, "fetch", lambda *_: folder)
    monkeypatch.setattr(torch_module, "open_source", lambda *_, **__: pytest.fail("its weights were converted"))
    of_hub = DenseAdapter(EncoderConfig("one", "dense", "org/chat"), CPU)
    of_hub.probe()
    with pytest.raises(Unavailable, match="org/chat is a chat model"):
        of_hub.load()

"""A real XLM-RoBERTa with BGE-M3's heads, beside a reference of thirty lines."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from multi_models import TOKEN_DIMENSION, m3, write_head
from small_models import DIMENSION

from engine import Engine, InvalidInput, LoadFailed, MultiEncoding, MultiProxy, State, Unavailable, parse
from engine.adapters.kinds.m3_folder import read_head
from engine.adapters.kinds.multi import MultiAdapter
from engine.operations.dense import Embed
from engine.operations.sparse import EncodeSparse

TEXTS = [
    "A pilot light is the small flame that stays lit.",
    "short",
    "",
    "</s> and a <pad> that somebody wrote, and \x00 in the middle \u00e9",
    "so that the big burner lights at once " * 9,
    "aaa aaa AAA",
]
LONGEST = 128

pytestmark = pytest.mark.usefixtures("own_cache")


def reference(folder: Path, texts: list[str]) -> list[tuple[Any, dict[int, float], Any]]:
    """What the paper's formulas give, one text at a time: dense (d,), lexical {id: weight}, ColBERT (tokens - 1, d)."""
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    body = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    lexical, late = (load_file(folder / f"{name}_linear.safetensors") for name in ("sparse", "colbert"))
    dropped = {tokenizer.convert_tokens_to_ids(token) for token in ("<s>", "</s>", "<pad>", "<unk>")}
    found = []
    for text in texts:
        features = tokenizer(text, truncation=True, max_length=LONGEST, return_tensors="pt")
        with torch.no_grad():
            states = body(**features).last_hidden_state[0]
        dense = states[0] / states[0].norm()
        weights = (states @ lexical["weight"].float().T + lexical["bias"].float())[:, 0].clamp(min=0)
        best: dict[int, float] = {}
        for token, weight in zip(features["input_ids"][0].tolist(), weights.tolist(), strict=True):
            if token not in dropped and weight > 0:
                best[token] = max(weight, best.get(token, 0.0))
        vectors = states[1:] @ late["weight"].float().T + late["bias"].float()
        found.append((dense.numpy(), best, (vectors / vectors.norm(dim=1, keepdim=True)).numpy()))
    return found


def agrees(encoding: MultiEncoding, expected: list[tuple[Any, dict[int, float], Any]], atol: float = 1e-5) -> None:
    """Check every form that is there."""
    for index, (dense, lexical, late) in enumerate(expected):
        if encoding.dense is not None:
            np.testing.assert_allclose(encoding.dense[index], dense, atol=atol)
        if encoding.sparse is not None:
            vector = encoding.sparse[index]
            assert dict(zip(vector.indices.tolist(), vector.weights.tolist(), strict=True)) == pytest.approx(
                lexical, abs=atol
            )
            assert (np.diff(vector.weights) <= 0).all()
        if encoding.colbert is not None:
            assert encoding.colbert[index].shape == late.shape
            np.testing.assert_allclose(encoding.colbert[index], late, atol=atol)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return m3(tmp_path_factory.mktemp("multi") / "m3")


Opened = Callable[..., MultiProxy]


@pytest.fixture
def opened(folder: Path) -> Iterator[Opened]:
    """Opens engines with one encoder, called m3."""
    engines = []

    def open_one(model: Path = folder, **settings: Any) -> MultiProxy:
        entry = {"kind": "multi", "model": str(model), **settings}
        engines.append(Engine(parse({"hardware": {"device": "cpu"}, "encoders": {"m3": entry}})))
        return engines[-1].multi("m3")

    yield open_one
    for engine in engines:
        engine.close()


def engine_of(proxy: MultiProxy) -> Engine:
    engine = proxy._engine
    assert isinstance(engine, Engine)
    return engine


def test_every_form_is_what_the_formulas_give(opened: Opened, folder: Path) -> None:
    found = opened().encode(TEXTS)
    agrees(found, reference(folder, TEXTS))
    assert found.dense is not None
    assert found.sparse is not None
    assert found.colbert is not None
    assert (found.dense.shape, found.dense.dtype) == ((len(TEXTS), DIMENSION), np.float32)
    assert [vectors.shape[0] for vectors in found.colbert] == [len(ids) - 1 for ids in tokenized(folder, TEXTS)]
    assert found.colbert[2].shape == (1, TOKEN_DIMENSION), "the end token of an empty text"
    assert (len(found.sparse[2]), len(found.sparse[5].tokens) > 0) == (0, True)
    assert found.tokens == sum(map(len, tokenized(folder, TEXTS)))


def tokenized(folder: Path, texts: list[str]) -> list[list[int]]:
    from transformers import AutoTokenizer

    ids: list[list[int]] = AutoTokenizer.from_pretrained(folder)(texts, truncation=True, max_length=LONGEST)[
        "input_ids"
    ]
    return ids


@pytest.mark.parametrize(
    "want", [("dense",), ("sparse",), ("colbert",), ("dense", "sparse"), ("dense", "sparse", "colbert")]
)
def test_what_is_not_wanted_is_not_computed_and_the_body_runs_once(folder: Path, want: tuple[str, ...]) -> None:
    runs: Counter[str] = Counter()
    with Engine(parse({"encoders": {"m3": {"kind": "multi", "model": str(folder), "device": "cpu"}}})) as engine:

        def watch(adapter: MultiAdapter) -> None:
            for name in ("body", "sparse_linear", "colbert_linear"):
                getattr(adapter._module, name).register_forward_hook(lambda *_, name=name: runs.update([name]))

        # The first batch is compared with one of its texts alone.
        engine.multi("m3").encode(TEXTS, want=want)
        engine.call("m3", watch)
        found = engine.multi("m3").encode(TEXTS, want=want)
    heads = {"sparse": "sparse_linear", "colbert": "colbert_linear"}
    assert runs == {"body": 1, **{heads[form]: 1 for form in want if form in heads}}
    assert {form for form in ("dense", "sparse", "colbert") if getattr(found, form) is not None} == set(want)
    agrees(found, reference(folder, TEXTS))


def test_neither_padding_nor_company_changes_a_text(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = opened()
    together = proxy.encode(TEXTS)
    assert together.dense is not None
    assert together.colbert is not None
    for index, text in enumerate(TEXTS):
        alone = proxy.encode([text])
        assert alone.dense is not None
        assert alone.colbert is not None
        np.testing.assert_allclose(alone.dense[0], together.dense[index], atol=1e-5)
        np.testing.assert_allclose(alone.colbert[0], together.colbert[index], atol=1e-5)
    monkeypatch.setattr("engine.adapters.base.torch_module.TOKENS_ON_CPU", 130)
    proxy = opened()
    in_parts = proxy.encode(TEXTS)
    assert in_parts.dense is not None
    np.testing.assert_allclose(in_parts.dense, together.dense, atol=1e-5)
    assert in_parts.tokens == together.tokens


def test_it_serves_as_a_dense_and_as_a_sparse_encoder(opened: Opened, folder: Path) -> None:
    proxy = opened()
    engine, expected = engine_of(proxy), reference(folder, TEXTS)
    vectors = engine.dense("m3").encode(TEXTS)
    np.testing.assert_allclose(vectors, [dense for dense, _, _ in expected], atol=1e-5)
    short = engine.dense("m3").encode(TEXTS, task="query", dimensions=16)
    cut = vectors[:, :16] / np.linalg.norm(vectors[:, :16], axis=1, keepdims=True)
    np.testing.assert_allclose(short, cut, atol=1e-6)
    with pytest.raises(InvalidInput, match="has 64"):
        engine.dense("m3").encode(["a"], dimensions=65)
    heaviest = engine.call("m3", EncodeSparse(TEXTS, task="passage", top_k=3))
    for vector, (_, lexical, _) in zip(heaviest.vectors, expected, strict=True):
        assert vector.weights.tolist() == pytest.approx(sorted(lexical.values(), reverse=True)[:3], abs=1e-5)
        assert [tokenizer_of(folder).convert_tokens_to_ids(token) for token in vector.tokens] == vector.indices.tolist()


def tokenizer_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def test_token_ids_stand_for_their_texts_with_and_without_special_tokens(opened: Opened, folder: Path) -> None:
    engine = engine_of(opened())
    expected = np.array([dense for dense, _, _ in reference(folder, TEXTS)])
    whole = tokenized(folder, TEXTS)
    found = engine.call("m3", Embed(whole))
    np.testing.assert_allclose(found.vectors, expected, atol=1e-5)
    bare = engine.call("m3", lambda adapter: [adapter.tokenize(text, "query") for text in TEXTS])
    assert bare[1] == whole[1][1:-1]
    assert len(bare[4]) > LONGEST, "uncut"
    kept = [index for index, ids in enumerate(bare) if ids]
    found = engine.call("m3", Embed([bare[index] for index in kept]))
    np.testing.assert_allclose(found.vectors, expected[kept], atol=1e-5)
    sparse = engine.call("m3", EncodeSparse([bare[0]], top_k=1000))
    assert sparse.tokens == len(whole[0])
    agrees(MultiEncoding(None, sparse.vectors, None, 0), reference(folder, TEXTS[:1]))
    for wrong in ([[10**6]], [[-1]], [[]]):
        with pytest.raises(InvalidInput, match="another tokenizer"):
            engine.call("m3", Embed(wrong))


def test_a_text_that_begins_or_ends_with_a_special_token_is_sent_as_text(opened: Opened) -> None:
    engine = engine_of(opened())
    first, last = engine.call(
        "m3", lambda adapter: (adapter._module.tokenizer.cls_token, adapter._module.tokenizer.sep_token)
    )
    for text in (f"{first} flame", f"flame {last}"):
        assert engine.call("m3", lambda adapter, text=text: adapter.tokenize(text)) == []
    assert engine.call("m3", lambda adapter: adapter.tokenize(f"flame {last} flame"))


def test_tokenizers_that_agree_have_one_key(folder: Path, opened: Opened) -> None:
    engine, other = engine_of(opened()), engine_of(opened())
    keys = {one.call("m3", lambda adapter: adapter.tokenizer_key) for one in (engine, engine, other)}
    assert len(keys) == 1
    assert None not in keys


def test_what_is_known_of_the_model_is_told(opened: Opened) -> None:
    proxy = opened()
    assert (proxy.dimension, proxy.max_tokens) == (DIMENSION, LONGEST)
    assert proxy.peek().metadata == {
        "dimension": DIMENSION, "colbert_dimension": TOKEN_DIMENSION, "max_tokens": LONGEST,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sentence", "tokenizer", "limit"),
    [(None, 10**30, 128), (8192, 512, 128), (64, 128, 64), (None, 32, 32), (99, 5, 99)],
)
def test_no_more_tokens_are_read_than_files_and_positions_allow(
    tmp_path: Path, opened: Opened, sentence: int | None, tokenizer: int, limit: int
) -> None:
    folder = m3(tmp_path / "m3")  # 130 positions, of which XLM-R uses no first two
    told = folder / "sentence_bert_config.json"
    told.unlink() if sentence is None else told.write_text(json.dumps({"max_seq_length": sentence}))
    said = json.loads((folder / "tokenizer_config.json").read_text()) | {"model_max_length": tokenizer}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    proxy = opened(folder)
    assert proxy.max_tokens == limit
    assert proxy.encode(["word " * 500]).tokens == limit


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_close(opened: Opened, folder: Path, dtype: str) -> None:
    found = opened(dtype=dtype).encode(TEXTS)
    assert found.dense is not None
    assert found.sparse is not None
    assert found.colbert is not None
    assert found.dense.dtype == found.colbert[0].dtype == np.float32
    for index, (dense, lexical, late) in enumerate(reference(folder, TEXTS)):
        assert cosine(found.dense[index], dense) >= 0.999
        assert min(cosine(*pair) for pair in zip(found.colbert[index], late, strict=True)) >= 0.999
        vector = dict(zip(found.sparse[index].indices.tolist(), found.sparse[index].weights.tolist(), strict=True))
        ids = sorted({*vector, *lexical})
        if ids:
            assert cosine([vector.get(i, 0) for i in ids], [lexical.get(i, 0) for i in ids]) >= 0.999


def cosine(left: Any, right: Any) -> float:
    return float(np.dot(left, right) / np.linalg.norm(left) / np.linalg.norm(right))


def test_heads_of_another_element_type_than_the_body_compute_in_the_bodys(tmp_path: Path, opened: Opened) -> None:
    folder = m3(tmp_path / "m3", heads="float16")  # as in BGE-M3's own repository
    body = SimpleNamespace(dtype=torch.float32, config=SimpleNamespace(hidden_size=DIMENSION))
    assert {weight.dtype for weight in read_head(folder, "colbert_linear", body).parameters()} == {torch.float32}
    agrees(opened(folder).encode(TEXTS), reference(folder, TEXTS))


def test_stepping_down_and_loading_anew_give_equal_bits(opened: Opened) -> None:
    proxy = opened()
    engine, first = engine_of(proxy), proxy.encode(TEXTS)
    engine.offload("m3")
    assert proxy.peek().state is State.IN_RAM
    after_rest = proxy.encode(TEXTS)
    assert proxy.peek().loads == 1
    engine.unload("m3")
    assert proxy.peek().state is State.UNLOADED
    after_load = proxy.encode(TEXTS)
    assert proxy.peek().loads == 2
    for again in (after_rest, after_load):
        assert bits(again) == bits(first)


def test_streamed_block_by_block_it_gives_the_same(opened: Opened) -> None:
    assert bits(opened(stream_layers=True).encode(TEXTS)) == bits(opened().encode(TEXTS))


def bits(encoding: MultiEncoding) -> list[bytes]:
    assert encoding.dense is not None
    assert encoding.sparse is not None
    assert encoding.colbert is not None
    arrays = [encoding.dense, *encoding.colbert, *(vector.weights for vector in encoding.sparse)]
    return [array.tobytes() for array in arrays]


def test_eight_threads_at_its_first_use_load_it_once(opened: Opened, folder: Path) -> None:
    proxy, expected = opened(), reference(folder, TEXTS)
    found: list[MultiEncoding] = []
    start = threading.Barrier(8)

    def use() -> None:
        start.wait()
        found.append(proxy.encode(TEXTS))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert proxy.peek().loads == 1
    assert len(found) == 8
    for one in found:
        agrees(one, expected)


def test_a_megabyte_of_text_is_read_as_its_beginning(opened: Opened) -> None:
    proxy, text = opened(), "pilot light " * 90_000
    found = proxy.encode([text, text[:2000]])
    assert found.dense is not None
    np.testing.assert_allclose(found.dense[0], found.dense[1], atol=1e-6)
    assert found.tokens == 2 * LONGEST


@pytest.mark.parametrize("name", ["sparse_linear", "colbert_linear"])
def test_a_folder_without_a_head_names_the_file_and_another_kind(tmp_path: Path, opened: Opened, name: str) -> None:
    folder = m3(tmp_path / "m3")
    (folder / f"{name}.safetensors").unlink()
    proxy = opened(folder)
    with pytest.raises(Unavailable, match=rf'no {name}\.safetensors and no {name}\.pt.*kind = "dense"'):
        proxy.encode(["a"])
    assert proxy.peek().state is State.UNAVAILABLE


def break_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def break_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def break_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 4096)


def break_head(folder: Path) -> None:
    (folder / "sparse_linear.safetensors").write_bytes(b"\xff" * 4096)


def widen_body(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text()) | {"intermediate_size": 32}
    (folder / "config.json").write_text(json.dumps(config))


def lengthen_body(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 3}
    (folder / "config.json").write_text(json.dumps(config))


def widen_head(folder: Path) -> None:
    write_head(folder, "colbert_linear", torch.nn.Linear(DIMENSION * 2, 8))


def fatten_head(folder: Path) -> None:
    write_head(folder, "sparse_linear", torch.nn.Linear(DIMENSION, 2))


BROKEN = [break_config, break_weights, break_header, break_head, widen_body, lengthen_body, widen_head, fatten_head]


@pytest.mark.parametrize("damage", BROKEN, ids=lambda damage: damage.__name__)
def test_a_damaged_folder_fails_clearly_and_harms_nothing_else(
    tmp_path: Path, folder: Path, damage: Callable[[Path], None]
) -> None:
    broken = m3(tmp_path / "broken")
    damage(broken)
    entries = {name: {"kind": "multi", "model": str(path)} for name, path in (("m3", folder), ("broken", broken))}
    with Engine(parse({"hardware": {"device": "cpu"}, "encoders": entries})) as engine:
        with pytest.raises((LoadFailed, Unavailable)) as failed:
            engine.multi("broken").encode(["a"])
        assert failed.value.next_step
        view = engine.view("broken")
        assert view.state in (State.FAILED, State.UNAVAILABLE)
        assert (view.loads, view.bytes_in_ram) == (0, 0)
        agrees(engine.multi("m3").encode(TEXTS), reference(folder, TEXTS))


def test_a_head_of_another_model_is_told_with_both_shapes(tmp_path: Path, opened: Opened) -> None:
    folder = m3(tmp_path / "m3")
    widen_head(folder)
    with pytest.raises(LoadFailed, match=r"colbert_linear holds bias \[8\], weight \[8, 128\].*weight \[8, 64\]"):
        opened(folder).encode(["a"])


def test_the_layout_of_its_own_repository_gives_the_same(tmp_path: Path, opened: Opened, folder: Path) -> None:
    pickled = m3(tmp_path / "m3", layout="pickled")
    assert {path.name for path in pickled.iterdir() if path.suffix in (".bin", ".pt", ".safetensors")} == {
        "pytorch_model.bin", "sparse_linear.pt", "colbert_linear.pt",
    }  # fmt: skip
    agrees(opened(pickled).encode(TEXTS), reference(folder, TEXTS))

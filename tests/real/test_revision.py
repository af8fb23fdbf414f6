"""What tells the answers of one encoder from those of another: the model's revision, and what it computes in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_models import Dtype, bert

from engine.adapters.kinds.dense import DenseAdapter
from engine.adapters.sources import locate as references
from engine.adapters.sources.content import Digests, content_id
from engine.devices.placement import CPU, Placement
from engine.settings.config import EncoderConfig

Load = Callable[..., DenseAdapter]


@pytest.fixture
def load(own_cache: Path) -> Iterator[Load]:
    """Loads a model in an element type on the CPU; converted files go where the test's own are."""
    adapters: list[DenseAdapter] = []

    def begin(model: str, dtype: str) -> DenseAdapter:
        adapters.append(DenseAdapter(EncoderConfig("small", "dense", model, dtype=dtype), CPU))
        assert adapters[-1].revision is None
        assert adapters[-1].load().revision == adapters[-1].revision
        return adapters[-1]

    yield begin
    for adapter in adapters:
        assert adapter.unload()


@pytest.mark.parametrize("written", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("asked", "computed"),
    [("auto", "float32"), ("float32", "float32"), ("float16", "float16"), ("bfloat16", "bfloat16")],
)
def test_the_revision_names_what_is_computed_in_and_not_what_was_asked_for_or_written(
    written: Dtype, asked: str, computed: str, load: Load, tmp_path: Path
) -> None:
    adapter = load(str(bert(tmp_path / "small", dtype=written)), asked)
    assert re.fullmatch(rf"[0-9a-f]{{12}}\+{computed}", str(adapter.revision))
    adapter.resume(Placement(CPU))
    assert {str(weight.dtype) for weight in adapter._module.parameters()} == {f"torch.{computed}"}
    assert adapter.encode(["a"]).vectors.shape == (1, 64)


def test_the_revision_of_a_model_that_has_one_comes_first(load: Load) -> None:
    adapter = load("builtin:all-MiniLM-L6-v2", "float16")
    located = references.locate("builtin:all-MiniLM-L6-v2")
    assert located.revision
    assert adapter.revision == f"{located.revision}+float16"


def test_a_local_model_is_named_for_its_content_wherever_it_lies(load: Load, tmp_path: Path) -> None:
    one, same = bert(tmp_path / "one"), bert(tmp_path / "same")
    (same / "README.md").write_text("about it", encoding="utf-8")
    other = bert(tmp_path / "other", seed=1)
    assert load(str(one), "auto").revision == load(str(same), "auto").revision
    assert load(str(other), "auto").revision != load(str(one), "auto").revision


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "1_Pooling/config.json"])
def test_a_change_of_any_file_that_answers_depend_on_changes_the_content_id(name: str, tmp_path: Path) -> None:
    folder, digests = bert(tmp_path / "model"), Digests(tmp_path / "digests.json")
    before = content_id(folder, digests)
    assert content_id(folder, digests) == before
    file = folder / name
    file.write_bytes(file.read_bytes() + b" ")
    assert content_id(folder, digests) != before


def test_a_file_that_did_not_change_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, digests = bert(tmp_path / "model"), Digests(tmp_path / "digests.json")
    first = content_id(folder, digests)
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert content_id(folder, Digests(tmp_path / "digests.json")) == first
    (tmp_path / "digests.json").write_text("[torn", encoding="utf-8")
    with pytest.raises(TypeError):
        content_id(folder, digests)

"""What tells the answers of one encoder from those of another: the model's revision, and what it computes in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_models import Dtype, bert

from engine.adapters import references, torch_adapter
from engine.adapters.dense import DenseAdapter
from engine.config import EncoderConfig
from engine.placement import CPU, Placement

Load = Callable[..., DenseAdapter]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Loads a model in an element type on the CPU; converted files go where the test's own are."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch_adapter._store.cache_clear()
    adapters: list[DenseAdapter] = []

    def begin(model: str, dtype: str) -> DenseAdapter:
        adapters.append(DenseAdapter(EncoderConfig("small", "dense", model, dtype=dtype), CPU))
        assert adapters[-1].revision is None
        assert adapters[-1].load().revision == adapters[-1].revision
        return adapters[-1]

    yield begin
    for adapter in adapters:
        assert adapter.unload()
    torch_adapter._store.cache_clear()


@pytest.mark.parametrize("written", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("asked", "computed"),
    [("auto", "float32"), ("float32", "float32"), ("float16", "float16"), ("bfloat16", "bfloat16")],
)
def test_the_revision_names_what_is_computed_in_and_not_what_was_asked_for_or_written(
    written: Dtype, asked: str, computed: str, load: Load, tmp_path: Path
) -> None:
    adapter = load(str(bert(tmp_path / "small", dtype=written)), asked)
    assert adapter.revision == computed
    adapter.resume(Placement(CPU))
    assert {str(weight.dtype) for weight in adapter._module.parameters()} == {f"torch.{computed}"}
    assert adapter.encode(["a"]).vectors.shape == (1, 64)


def test_the_revision_of_a_model_that_has_one_comes_first(load: Load) -> None:
    adapter = load("builtin:all-MiniLM-L6-v2", "float16")
    located = references.locate("builtin:all-MiniLM-L6-v2")
    assert located.revision
    assert adapter.revision == f"{located.revision}+float16"

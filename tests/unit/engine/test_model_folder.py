"""Which files of a model's folder hold its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.adapters.sources import model_folder, references
from engine.adapters.sources.download import Progress
from engine.errors import LoadFailed
from engine.state import Download

MAIN = 1 << 30
HEAD = 1 << 12


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"model.safetensors": MAIN, "pytorch_model.bin": MAIN}, []),
        ({"pytorch_model.bin": MAIN, "training_args.bin": 1, "optimizer.pt": MAIN}, ["pytorch_model.bin"]),
        ({"pytorch_model.bin": MAIN, "pytorch_model.fp16.bin": MAIN}, ["pytorch_model.bin"]),
        (
            {"pytorch_model.bin": MAIN, "sparse_linear.pt": HEAD, "colbert_linear.pt": HEAD},
            ["colbert_linear.pt", "pytorch_model.bin", "sparse_linear.pt"],
        ),
        ({"model.safetensors": MAIN, "sparse_linear.pt": HEAD}, ["sparse_linear.pt"]),
        ({"model.safetensors": MAIN, "sparse_linear.pt": HEAD, "sparse_linear.safetensors": HEAD}, []),
        ({"model.safetensors": MAIN, "another_copy.pt": MAIN}, []),
        ({"model-00001-of-00002.safetensors": MAIN, "pytorch_model-00001-of-00002.bin": MAIN}, []),
        ({"sparse_linear.safetensors": HEAD, "pytorch_model.bin": MAIN}, ["pytorch_model.bin"]),
        ({"open_clip_model.safetensors": MAIN, "open_clip_pytorch_model.bin": MAIN}, []),
        ({"ViT-B-32.pt": MAIN}, ["ViT-B-32.pt"]),
        ({"empty.bin": 0, "notes.txt": 5}, []),
    ],
    ids=str,
)
def test_a_pickled_file_counts_where_no_safetensors_file_holds_its_weights(
    files: dict[str, int], wanted: list[str]
) -> None:
    assert model_folder.pickled_only(files) == wanted


@pytest.mark.parametrize(
    ("pickled", "safe"),
    [
        ("pytorch_model.bin", "model.safetensors"),
        ("pytorch_model-00001-of-00002.bin", "model-00001-of-00002.safetensors"),
        ("pytorch_model.bin.index.json", "model.safetensors.index.json"),
        ("open_clip_pytorch_model.bin", "open_clip_model.safetensors"),
        ("sparse_linear.pt", "sparse_linear.safetensors"),
    ],
)
def test_a_converted_file_has_the_name_that_libraries_look_for(pickled: str, safe: str) -> None:
    assert model_folder.safe_name(pickled) == safe


def test_an_index_that_is_none_is_a_load_failure(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "model-00001-of-00001.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(["weight_map"]), encoding="utf-8")
    with pytest.raises(LoadFailed, match="is not an index"):
        model_folder.check(tmp_path)


def test_a_hub_id_names_its_revision_and_a_folder_may_hold_an_at() -> None:
    assert references.locate("org/name") == references.Reference("org/name", local=False)
    assert references.locate("org/name@v1/x") == references.Reference("org/name", local=False, revision="v1/x")


def test_progress_is_told_at_its_begin_about_once_a_second_and_at_its_end() -> None:
    now, told = [0.0], list[Download]()
    progress = Progress(told.append, lambda: now[0])
    progress.begin(100)
    for second in (0.2, 0.9, 1.1, 1.5, 2.2):
        now[0] = second
        progress.add(10)
    progress.end()
    assert told == [Download(0, 100), Download(30, 100), Download(50, 100), Download(50, 100)]

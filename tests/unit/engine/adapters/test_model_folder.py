"""Which files of a model's folder hold its weights."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.adapters.sources import hub, model_folder
from engine.adapters.sources.download import Progress
from engine.errors import LoadFailed, PilotlightError, Unavailable
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


def test_the_modules_behind_a_router_count(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(json.dumps([{"path": "0_Router"}, {"path": "1_Dense"}]), encoding="utf-8")
    (tmp_path / "0_Router").mkdir()
    routes = {"types": {"query_0_Static": "S", "document_0_Transformer": "T"}, "structure": {}}
    (tmp_path / "0_Router" / "router_config.json").write_text(json.dumps(routes), encoding="utf-8")
    ways = ["0_Router/query_0_Static", "0_Router/document_0_Transformer"]
    assert model_folder.module_folders(tmp_path) == ["0_Router", "1_Dense", *ways]


def test_a_router_at_the_top_counts_too_and_one_that_cannot_be_read_does_not(tmp_path: Path) -> None:
    file = tmp_path / "router_config.json"
    file.write_text(json.dumps({"types": {"query_0_Static": "S"}}), encoding="utf-8")
    (tmp_path / "query_0_Static").mkdir()
    (tmp_path / "query_0_Static" / "model.safetensors").touch()
    assert model_folder.weight_files(tmp_path) == [tmp_path / "query_0_Static" / "model.safetensors"]
    file.write_text("[]", encoding="utf-8")
    assert model_folder.module_folders(tmp_path) == []


BOTH = ["config.json", "open_clip_config.json", "tokenizer.json", "pytorch_model.bin", "open_clip_model.safetensors"]


@pytest.mark.parametrize(
    ("open_clip", "without", "left_out"),
    [
        (False, "", "open_clip_model.safetensors"),
        (True, "", "pytorch_model.bin"),
        (False, "config.json", ""),
        (False, "pytorch_model.bin", ""),
        (True, "open_clip_model.safetensors", ""),
    ],
)
def test_of_two_layouts_in_one_repository_one_is_read(open_clip: bool, without: str, left_out: str) -> None:
    files = set(BOTH) - {without}
    assert model_folder.in_one_layout(files, open_clip=open_clip) == files - {left_out}
    if left_out:
        sizes = dict.fromkeys(files, MAIN)
        assert hub._wanted(sizes, Path("nowhere"), open_clip=open_clip).keys() == files - {left_out}


def test_a_full_disk_is_told_before_and_during_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LoadFailed, match=r"MiB for its download, and the disk of .* has \d+ MiB free"):
        hub._require_room("org/large", tmp_path, 1 << 60)
    monkeypatch.setattr(hub, "_fetched", raising(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(LoadFailed, match="The disk became full while org/large was downloaded") as raised:
        hub.fetch("org/large")
    assert raised.value.next_step == "Make room; it goes on where it was."


def test_a_connection_that_is_lost_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx2

    monkeypatch.setattr(hub, "_fetched", raising(httpx2.ReadError("peer closed connection")))
    with pytest.raises(LoadFailed, match=r"connection to the model hub was lost .* peer closed connection") as raised:
        hub.fetch("org/large")
    assert "goes on where this one was" in str(raised.value.next_step)


@pytest.mark.parametrize(("offline", "expected"), [(True, Unavailable), (False, LoadFailed)])
def test_what_the_settings_forbid_to_fetch_is_unavailable_and_a_hub_out_of_reach_is_tried_again(
    offline: bool, expected: type[PilotlightError], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    monkeypatch.setattr(hub, "_fetched", raising(LocalEntryNotFoundError("not here")))
    with pytest.raises(expected, match="is not on this computer"):
        hub.fetch("org/large", offline=offline)


def raising(error: Exception) -> Callable[..., Path]:
    def fetched(*_: object) -> Path:
        raise error

    return fetched


def test_progress_is_told_at_its_begin_about_once_a_second_and_at_its_end() -> None:
    now, told = [0.0], list[Download]()
    progress = Progress(told.append, lambda: now[0])
    progress.begin(100)
    for second in (0.2, 0.9, 1.1, 1.5, 2.2):
        now[0] = second
        progress.add(10)
    progress.end()
    assert told == [Download(0, 100), Download(30, 100), Download(50, 100), Download(50, 100)]

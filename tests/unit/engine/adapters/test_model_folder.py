"""Which files of a model's folder hold its weights."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.adapters.sources import content, folder_check, hub, model_folder, weight_names
from engine.adapters.sources.content import Digests, content_id
from engine.adapters.sources.download import Progress
from engine.errors import LoadFailed, PilotlightError, Unavailable
from engine.state import Download

SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
INDEX = "model.safetensors.index.json"


def write(folder: Path, *names: str, text: str = "") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def read(folder: Path, **how: bool) -> list[str]:
    """The weights that are read of a folder, by their names in it."""
    return [file.relative_to(folder).as_posix() for file in model_folder.weight_files(folder, **how)]


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (["pytorch_model.bin", "training_args.bin", "optimizer.pt"], ["pytorch_model.bin"]),
        (["pytorch_model.bin", "pytorch_model.fp16.bin"], ["pytorch_model.bin"]),
        (
            ["pytorch_model.bin", "sparse_linear.pt", "colbert_linear.pt"],
            ["pytorch_model.bin", "sparse_linear.pt", "colbert_linear.pt"],
        ),
        (
            ["model.safetensors", "sparse_linear.pt", "sparse_linear.safetensors"],
            ["model.safetensors", "sparse_linear.safetensors"],
        ),
        (["model.safetensors", "another_copy.pt", "notes.bin"], ["model.safetensors"]),
        (["model.safetensors", "model.fp16.safetensors", "consolidated.safetensors"], ["model.safetensors"]),
        ([INDEX, *SHARDS, "model-00003-of-00003.safetensors", "pytorch_model.bin"], SHARDS),
        (["model.safetensors", INDEX, *SHARDS], ["model.safetensors"]),
        (["pytorch_model.bin.index.json", *SHARDS, "model.bin"], SHARDS),
        (["model.safetensors", "open_clip_model.safetensors"], ["model.safetensors"]),
        (["model.safetensors", "adapter_model.safetensors"], ["model.safetensors"]),
        (
            ["model.safetensors", "adapter_config.json", "adapter_model.safetensors"],
            ["model.safetensors", "adapter_model.safetensors"],
        ),
        (["consolidated.safetensors"], []),
    ],
    ids=str,
)
def test_weights_are_what_the_index_names_or_the_main_file_and_the_heads(
    files: list[str], wanted: list[str], tmp_path: Path
) -> None:
    write(tmp_path, "config.json", text="{}")
    write(tmp_path, *files, text=json.dumps({"weight_map": {"a": SHARDS[1], "b": SHARDS[0], "c": SHARDS[0]}}))
    assert read(tmp_path) == wanted


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (["open_clip_model.safetensors", "open_clip_pytorch_model.bin"], ["open_clip_model.safetensors"]),
        (["open_clip_pytorch_model.bin", "model.safetensors"], ["open_clip_pytorch_model.bin"]),
        (["ViT-B-32.pt"], ["ViT-B-32.pt"]),
        (["epoch_1.pt", "epoch_2.pt"], []),
        (["epoch_1.pt", "epoch_1.safetensors"], ["epoch_1.safetensors"]),
    ],
    ids=str,
)
def test_open_clip_reads_its_own_names_or_the_only_file(files: list[str], wanted: list[str], tmp_path: Path) -> None:
    write(tmp_path, "open_clip_config.json", *files)
    assert read(tmp_path) == wanted
    write(tmp_path, "config.json", text="{}")
    assert read(tmp_path, open_clip=True) == wanted


def test_the_file_that_the_configuration_names_is_the_main_one(tmp_path: Path) -> None:
    write(tmp_path, "model.safetensors", "other.safetensors")
    write(tmp_path, "config.json", text=json.dumps({"transformers_weights": "other.safetensors"}))
    assert read(tmp_path) == ["other.safetensors"]
    write(tmp_path, "config.json", text=json.dumps({"transformers_weights": "../other.safetensors"}))
    assert read(tmp_path) == ["model.safetensors"]


def test_nothing_is_a_file_of_the_model_that_is_a_folder_or_a_link_to_nowhere(tmp_path: Path) -> None:
    write(tmp_path, "config.json", "pytorch_model.bin")
    (tmp_path / "model.safetensors").mkdir()
    (tmp_path / INDEX).symlink_to(tmp_path / "nowhere")
    assert read(tmp_path) == ["pytorch_model.bin"]


def test_weights_beside_modules_that_all_have_folders_of_their_own_are_no_part(tmp_path: Path) -> None:
    write(tmp_path, "modules.json", text=json.dumps([{"path": "0_Transformer"}, {"path": "1_Dense"}]))
    write(tmp_path, "model.safetensors", "0_Transformer/model.safetensors", "1_Dense/pytorch_model.bin")
    write(tmp_path, "0_Transformer/checkpoint-500/model.safetensors", "1_Dense/old/model.safetensors")
    assert read(tmp_path) == ["0_Transformer/model.safetensors", "1_Dense/pytorch_model.bin"]


@pytest.mark.parametrize("path", ["../other", "/other", "C:\\other", 5])
def test_a_module_outside_the_folder_is_none(path: object, tmp_path: Path) -> None:
    write(tmp_path, "modules.json", text=json.dumps([{"path": path}, {"path": "1_Dense"}, "no module"]))
    assert model_folder.module_folders(tmp_path) == ["1_Dense"]


DESCRIBING = [
    "config.json", "modules.json", "sentence_bert_config.json", "tokenizer.json", "vocab.txt", "merges.txt",
    "tokenizer.model", "chat_template.jinja", "own.py", "1_Pooling/config.json", "additional_chat_templates/a.jinja",
]  # fmt: skip
STRAY = [
    "README.txt", "notes.json", "old_config.json", "README.md", "training_args.bin", "model.fp16.safetensors",
    "2_Other/config.json", "onnx/config.json", "generation_config.json", "1_Pooling/notes.txt", "vectors.txt",
]  # fmt: skip


def test_the_small_files_of_a_model_are_those_that_describe_it(tmp_path: Path) -> None:
    write(tmp_path, *DESCRIBING, *STRAY)
    write(tmp_path, "modules.json", text=json.dumps([{"path": ""}, {"path": "1_Pooling"}]))
    found = {file.relative_to(tmp_path).as_posix() for file in model_folder.small_files(tmp_path)}
    assert found == set(DESCRIBING)


def test_what_is_no_part_of_the_model_changes_neither_its_name_nor_its_structure(tmp_path: Path) -> None:
    write(tmp_path, *DESCRIBING, "model.safetensors")
    write(tmp_path, "modules.json", text=json.dumps([{"path": ""}, {"path": "1_Pooling"}]))
    digests = Digests(tmp_path / "kept" / "digests.json")

    def names() -> tuple[str, str]:
        return content_id(tmp_path, digests), content.configuration(tmp_path)

    before = names()
    write(tmp_path, *STRAY, "broken.safetensors", "broken.json", text="{broken")
    (tmp_path / "vocab.json").mkdir()
    (tmp_path / "added_tokens.json").symlink_to(tmp_path / "nowhere")
    assert names() == before
    write(tmp_path, "own.py", text="changed")
    assert names()[0] != before[0]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the names of files are text")
def test_names_of_files_are_bytes(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    write(folder, "config.json", "model.safetensors", os.fsdecode(b"r\xe9sum\xe9.py"), text="{}")
    digests = Digests(tmp_path / "digests.json")
    first = content_id(folder, digests)
    assert content_id(folder, Digests(tmp_path / "digests.json")) == first
    (folder / os.fsdecode(b"r\xe9sum\xe9.py")).rename(folder / os.fsdecode(b"r\xe8sum\xe9.py"))
    assert content_id(folder, digests) != first


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
    assert weight_names.safe_name(pickled) == safe


def test_an_index_that_is_none_is_a_load_failure(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "model-00001-of-00001.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(["weight_map"]), encoding="utf-8")
    with pytest.raises(LoadFailed, match="is not an index"):
        folder_check.check(tmp_path)


def test_the_modules_behind_a_router_count(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(json.dumps([{"path": "0_Router"}, {"path": "1_Dense"}]), encoding="utf-8")
    (tmp_path / "0_Router").mkdir()
    routes = {"types": {"query_0_Static": "S", "document_0_Transformer": "T"}, "structure": {}}
    (tmp_path / "0_Router" / "router_config.json").write_text(json.dumps(routes), encoding="utf-8")
    ways = ["0_Router/query_0_Static", "0_Router/document_0_Transformer"]
    assert model_folder.module_folders(tmp_path) == ["0_Router", "1_Dense", *ways]


def test_a_router_of_older_versions_has_its_ways_in_another_file(tmp_path: Path) -> None:
    write(tmp_path, "modules.json", text=json.dumps([{"path": "0_Asym"}]))
    write(tmp_path, "0_Asym/config.json", text=json.dumps({"types": {"140": "Dense"}, "structure": {}}))
    write(tmp_path, "0_Asym/140/pytorch_model.bin")
    assert read(tmp_path) == ["0_Asym/140/pytorch_model.bin"]


def test_a_router_at_the_top_counts_too_and_one_that_cannot_be_read_does_not(tmp_path: Path) -> None:
    file = tmp_path / "router_config.json"
    file.write_text(json.dumps({"types": {"query_0_Static": "S"}}), encoding="utf-8")
    (tmp_path / "query_0_Static").mkdir()
    (tmp_path / "query_0_Static" / "model.safetensors").touch()
    assert model_folder.weight_files(tmp_path) == [tmp_path / "query_0_Static" / "model.safetensors"]
    file.write_text("[]", encoding="utf-8")
    assert model_folder.module_folders(tmp_path) == []


@pytest.mark.parametrize(
    ("open_clip", "left_out"), [(False, "open_clip_model.safetensors"), (True, "pytorch_model.bin")]
)
def test_of_two_layouts_in_one_repository_one_is_read(open_clip: bool, left_out: str) -> None:
    both = [
        "config.json",
        "open_clip_config.json",
        "tokenizer.json",
        "pytorch_model.bin",
        "open_clip_model.safetensors",
    ]
    wanted = hub._wanted(dict.fromkeys(both, 1), Path("nowhere"), open_clip=open_clip)
    assert wanted.keys() == set(both) - {left_out}


def test_no_weights_are_downloaded_that_are_not_read(tmp_path: Path) -> None:
    files = ["config.json", "tokenizer.json", INDEX, *SHARDS, "consolidated.safetensors", "model.fp16.safetensors"]
    files += ["model-00003-of-00003.safetensors", "checkpoint-5/model.safetensors", "checkpoint-5/optimizer.pt"]
    files += ["pytorch_model.bin", "README.md", "onnx/model.onnx", "additional_chat_templates/a.jinja"]
    write(tmp_path, "config.json", text="{}")
    write(tmp_path, INDEX, text=json.dumps({"weight_map": dict(enumerate(SHARDS))}))
    small = {"config.json", "tokenizer.json", INDEX, "README.md", "additional_chat_templates/a.jinja"}
    assert hub._wanted(dict.fromkeys(files, 1), tmp_path).keys() == {*small, *SHARDS}
    (tmp_path / INDEX).unlink()  # as in a cache that an older version filled
    assert hub._wanted(dict.fromkeys(files, 1), tmp_path).keys() == {
        *small,
        *SHARDS,
        "model-00003-of-00003.safetensors",
    }


@pytest.mark.parametrize(
    "config", [{"quantization_config": {"quant_method": "fp8"}}, {"text_config": {"quantization_config": {"bits": 4}}}]
)
def test_quantised_weights_are_refused_before_anything_reads_them(config: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, "config.json", text=json.dumps(config))
    write(tmp_path, "model.safetensors")
    with pytest.raises(Unavailable, match="are quantised") as raised:
        folder_check.check(tmp_path)
    assert "float32" in str(raised.value.next_step)


@pytest.mark.parametrize("name", ["consolidated.safetensors", "model.fp16.safetensors"])
def test_weights_under_another_name_alone_are_told_with_the_name_that_is_read(name: str, tmp_path: Path) -> None:
    write(tmp_path, "config.json", name, text="{}")
    with pytest.raises(Unavailable, match=name) as raised:
        folder_check.check(tmp_path)
    assert "model.safetensors" in str(raised.value.next_step)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "tokenizer.json", "1_Pooling/config.json"])
def test_a_pointer_of_git_lfs_is_told_with_the_command_that_fetches_the_file(name: str, tmp_path: Path) -> None:
    write(tmp_path, "config.json", *(["model.safetensors"] if name.endswith(".json") else []), text="{}")
    write(tmp_path, "modules.json", text='[{"path": "1_Pooling"}]')
    write(tmp_path, name, text="version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 90868370\n")
    with pytest.raises(Unavailable, match=f"{name} is only a pointer") as raised:
        folder_check.check(tmp_path)
    assert "git lfs pull" in str(raised.value.next_step)


@pytest.mark.parametrize("shard", ["../model.safetensors", "/model.safetensors", ""])
def test_an_index_that_leads_out_of_its_folder_is_none(shard: str, tmp_path: Path) -> None:
    write(tmp_path, "config.json", text="{}")
    write(tmp_path, INDEX, text=json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(LoadFailed, match="is not an index"):
        folder_check.check(tmp_path)


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

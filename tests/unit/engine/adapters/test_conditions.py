"""What has to change before a load that cannot work is tried again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.adapters.base.conditions import Conditions


class Settings:
    """Whether a hub may be asked."""

    offline = False


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model" / "1_Pooling").mkdir(parents=True)
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "1_Pooling" / "config.json").write_text("{}")
    return tmp_path / "model"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder into which pip installs."""
    (tmp_path / "site" / "other-1.0.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path / "site"


@pytest.fixture
def conditions(folder: Path, site: Path) -> Conditions:
    conditions = Conditions(lambda: Settings.offline)
    conditions.note(folder)
    return conditions


def test_before_the_first_load_everything_may_have_changed() -> None:
    assert Conditions(lambda: False).change() == "it was not loaded yet"


def test_nothing_changed_where_nobody_did_anything(conditions: Conditions) -> None:
    assert conditions.change() is None
    assert conditions.change() is None


def test_each_change_of_a_file_counts(conditions: Conditions, folder: Path) -> None:
    file = folder / "1_Pooling" / "config.json"
    for change in (
        lambda: file.write_text("{ }"),
        lambda: os.utime(file, ns=(1, 1)),
        lambda: (folder / "own.py").write_text(""),
        lambda: (folder / "config.json").unlink(),
        lambda: (folder / "1_Pooling" / "deep").mkdir() or (folder / "1_Pooling" / "deep" / "x").touch(),
    ):
        change()
        assert "changed" in str(conditions.change()), change
        conditions.note(folder)
        assert conditions.change() is None


def test_a_file_behind_a_link_counts_as_in_a_hubs_cache(tmp_path: Path, site: Path) -> None:
    (tmp_path / "blob").write_text("{}")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "config.json").symlink_to(tmp_path / "blob")
    conditions = Conditions(lambda: False)
    conditions.note(tmp_path / "snapshot")
    (tmp_path / "blob").write_text("{ }")
    assert "config.json changed" in str(conditions.change())


def test_a_folder_that_comes_later_counts(tmp_path: Path, site: Path) -> None:
    conditions = Conditions(lambda: False)
    conditions.note(tmp_path / "later")
    assert conditions.change() is None
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "config.json").touch()
    assert "config.json changed" in str(conditions.change())


def test_hidden_folders_and_what_lies_far_below_are_not_looked_at(conditions: Conditions, folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "index").touch()
    deep = folder.joinpath(*"abcdefgh")
    deep.mkdir(parents=True)
    (deep / "x").touch()
    assert conditions.change() is None


def test_the_look_at_a_huge_folder_ends_after_its_upper_part(tmp_path: Path, site: Path) -> None:
    for outer in range(40):
        for inner in range(40):
            (tmp_path / "huge" / f"{outer:02}" / f"{inner:02}").mkdir(parents=True)
    (tmp_path / "huge" / "config.json").touch()
    conditions = Conditions(lambda: False)
    conditions.note(tmp_path / "huge")
    (tmp_path / "huge" / "39" / "39" / "x").touch()
    assert conditions.change() is None
    (tmp_path / "huge" / "own.py").touch()
    assert "own.py changed" in str(conditions.change())


def test_a_package_that_is_installed_counts_and_a_folder_of_scripts_does_not(
    conditions: Conditions, site: Path, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    monkeypatch.syspath_prepend(str(scripts))
    assert conditions.change() is None
    (scripts / "log.txt").touch()
    assert conditions.change() is None
    (site / "more-1.0.dist-info").mkdir()
    assert conditions.change() == "packages were installed or removed"


def test_the_setting_that_forbids_to_ask_a_hub_counts(conditions: Conditions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "offline", True)
    assert conditions.change() == "the settings changed whether a hub may be asked"

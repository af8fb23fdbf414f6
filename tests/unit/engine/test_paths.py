"""Where files go, and that one is replaced whole or not at all."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from engine import paths


@pytest.mark.skipif(sys.platform != "linux", reason="the XDG variables are Linux's")
def test_folders_follow_the_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    (tmp_path / "XDG_RUNTIME_DIR").mkdir()
    assert paths.settings_file() == tmp_path / "XDG_CONFIG_HOME" / "pilotlight" / "settings.toml"
    assert paths.state_folder() == tmp_path / "XDG_STATE_HOME" / "pilotlight"
    assert paths.runtime_folder() == tmp_path / "XDG_RUNTIME_DIR" / "pilotlight"


@pytest.mark.parametrize("value", ["", "/nowhere/at/all"])
def test_without_a_runtime_folder_the_state_folder_serves(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    assert paths.runtime_folder() == paths.state_folder()


def test_a_write_makes_the_folder_and_leaves_nothing_else_there(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "file"
    paths.write_atomically(target, b"one")
    paths.write_atomically(target, b"two")
    assert target.read_bytes() == b"two"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission bits")
def test_permissions_are_kept_unless_set(tmp_path: Path) -> None:
    target = tmp_path / "file"
    paths.write_atomically(target, b"")
    assert target.stat().st_mode & 0o777 == 0o644
    target.chmod(0o640)
    paths.write_atomically(target, b"")
    assert target.stat().st_mode & 0o777 == 0o640
    paths.write_atomically(target, b"", mode=0o600)
    assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_whole_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left"):
        paths.write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]

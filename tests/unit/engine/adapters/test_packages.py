"""What a person is told when a package is missing, and what to type."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from engine.adapters import packages
from engine.adapters.packages import command, missing, require
from engine.errors import Unavailable


def test_what_is_installed_is_not_imported() -> None:
    require("json", "antigravity")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("imports", "package"),
    [("not_a_package", "not-a-package"), ("open_clip", "open-clip-torch"), ("sentence_transformers", None)],
)
def test_a_missing_package_is_named_as_pip_knows_it(
    monkeypatch: pytest.MonkeyPatch, imports: str, package: str | None
) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    package = package or imports.replace("_", "-")
    with pytest.raises(Unavailable) as raised:
        require(imports)
    assert raised.value.message == f"The package {package} is not installed."
    assert raised.value.next_step == f"Run: {sys.executable} -m pip install {package}"


def test_the_first_missing_one_is_named() -> None:
    with pytest.raises(Unavailable, match="not-there"):
        require("json", "not_there", "nor_this")


def test_a_package_that_was_installed_meanwhile_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Unavailable):
        require("installed_meanwhile")
    before = tmp_path.stat()
    (tmp_path / "installed_meanwhile.py").touch()
    # As within one tick of the clock: Python trusts what it listed at that time.
    os.utime(tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns))
    require("installed_meanwhile")


def test_a_packaged_app_names_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    error = missing("spaCy", "The package spaCy is not installed.")
    assert "This build of Pilotlight comes without spaCy" in error.message
    assert error.next_step
    assert "Run:" not in error.next_step
    assert sys.executable not in str(error)


@pytest.mark.parametrize("python", ["/opt/my programs/bin/python", "/home/o'neill/python", "/usr/bin/python3"])
def test_the_line_survives_a_shell(monkeypatch: pytest.MonkeyPatch, python: str) -> None:
    monkeypatch.setattr(sys, "executable", python)
    assert shlex.split(command("pip", "install", "spacy")) == [python, "-m", "pip", "install", "spacy"]


def test_windows_is_given_the_python_that_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", r"C:\Program Files\Python\pythonw.exe")
    assert command("pip") == r'"C:\Program Files\Python\python.exe" -m pip'

"""`pilotlight add`: the table that it writes, its refusals, and the next steps that it prints."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import paths
from engine.adapters import packages
from engine.settings.file import SettingsFile
from tray.cli import access, main as cli

Add = Callable[..., int]

NOWHERE = str(Path("/nowhere/at-all"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.toml"


class Running:
    """A client of a Pilotlight that uses one settings file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def settings_file(self) -> Path:
        return self.file


@pytest.fixture
def run(file: Path, monkeypatch: pytest.MonkeyPatch) -> Add:
    monkeypatch.setattr(access, "running", lambda: None)
    monkeypatch.setattr(paths, "state_folder", lambda: file.parent / "state")
    return lambda *arguments: cli.main(["add", *arguments, "--config", str(file)])


def encoders(file: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = tomllib.loads(file.read_text(encoding="utf-8"))["encoders"]
    return found


def test_an_encoder_is_written_with_what_was_said_of_it_and_nothing_else(file: Path, run: Add) -> None:
    assert run("bge-m3", "multi", "BAAI/bge-m3", "--alias", "m3", "--alias", "bge", "--default", "--device", "cpu") == 0
    assert encoders(file)["bge-m3"] == {
        "kind": "multi",
        "model": "BAAI/bge-m3",
        "aliases": ["m3", "bge"],
        "default": True,
        "device": "cpu",
    }
    assert list(encoders(file)) == ["minilm", "bge-m3"]
    assert "# true: an encoder loads when it is first used." in file.read_text(encoding="utf-8")


def test_axes_name_the_encoder_that_they_stand_on(file: Path, run: Add) -> None:
    assert run("moods", "axes", "minilm", "--dtype", "float32") == 0
    assert encoders(file)["moods"] == {"kind": "axes", "base": "minilm", "dtype": "float32"}


def test_a_folder_is_written_as_it_is_found_from_anywhere(
    file: Path, run: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("mine", "dense", "./model") == 0
    assert run("home", "dense", "~/model") == 0
    assert [encoders(file)[name]["model"] for name in ("mine", "home")] == [str(tmp_path / "model"), "~/model"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("minilm", "dense", "a/b"), "There is an encoder minilm already"),
        (("x", "danse", "a/b"), "must be one of: dense, sparse"),
        (("x", "dense", "nothing"), "hub id"),
        (("x", "axes", "nobody"), "must be an encoder of kind dense or multi"),
        (("a b", "dense", "a/b"), "an encoder's name is letters"),
        (("x", "dense", "a/b", "--alias", "minilm"), "already belongs to minilm"),
        (("x", "dense", "a/b", "--device", "gpu"), "auto, cpu, cuda"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    file: Path, run: Add, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    SettingsFile(file).open()
    before = file.read_bytes()
    assert run(*arguments) == 1
    assert said in capsys.readouterr().err
    assert file.read_bytes() == before


def test_a_file_with_a_mistake_is_left_alone_and_the_mistake_told_once(
    file: Path, run: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("[hardware]\nlazy_encoders = 3\n", encoding="utf-8")
    assert run("x", "dense", "a/b") == 1
    assert capsys.readouterr().err.count("line 2") == 1
    assert file.read_text(encoding="utf-8") == "[hardware]\nlazy_encoders = 3\n"


def test_it_says_what_is_downloaded_and_when_the_encoder_is_known(
    file: Path, run: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    run("bge-m3", "multi", "BAAI/bge-m3")
    assert capsys.readouterr().out.splitlines() == [
        f"Added bge-m3 (multi) to {file}.",
        "BAAI/bge-m3: about 2.3 GB, MIT; a hundred languages, 8192 tokens.",
        "Its files are downloaded at its first use and kept in the hub's cache, unless they are there already.",
        "Pilotlight is not running; it knows the encoder from its next start.",
    ]


def test_a_missing_package_is_named_with_the_line_that_installs_it(
    run: Add, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name in ("spacy", "open_clip") else True)
    monkeypatch.setattr(sys, "executable", "C:\\Program Files\\Python\\python.exe")
    run("tagger", "tag", "en_core_web_sm")
    assert (
        "It cannot be used yet. The package spaCy is not installed. "
        'Run: "C:\\Program Files\\Python\\python.exe" -m pip install spacy'
    ) in capsys.readouterr().out.splitlines()
    run("clip", "image_text", "open-clip:ViT-B-32/laion2b_s34b_b79k")
    assert capsys.readouterr().out.count("-m pip install open-clip-torch") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("mine", "dense", NOWHERE), f"The folder {NOWHERE} does not exist."),
        (("photo", "image_text", NOWHERE), f"The folder {NOWHERE} does not exist."),
        (("tagger", "tag", NOWHERE), f"The folder {NOWHERE} does not exist."),
        (("mine", "plugin", "not-there-at-all"), "No installed package has a plug-in not-there-at-all."),
        (("axes", "axes", "minilm"), None),
        (("bge", "dense", "BAAI/bge-small-en-v1.5"), None),
    ],
)
def test_what_is_missing_for_a_first_use_is_said_once(
    run: Add, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str | None
) -> None:
    assert run(*arguments) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("It cannot be used yet.")]
    assert len(lines) == (said is not None)
    assert said is None or f"It cannot be used yet. {said} " in lines[0]


def test_a_running_app_is_asked_which_file_it_goes_by(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(access, "running", lambda: Running(file))
    assert cli.main(["add", "x", "dense", "a/b"]) == 0
    assert "The running Pilotlight knows it within a second." in capsys.readouterr().out
    assert encoders(file)["x"]["model"] == "a/b"
    assert cli.main(["add", "x", "dense", "a/b", "--config", str(tmp_path / "other.toml")]) == 0
    assert "The running Pilotlight goes by another settings file." in capsys.readouterr().out

"""Edits of the settings file: what they keep, what they refuse, and that nothing is ever lost."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from engine_fakes import LIMIT
from settings_file_bench import COMMENTED, Bench

from engine import paths
from engine.errors import SettingsError
from engine.settings import file as configfile, toml as configtext
from engine.settings.config import Config


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setattr(paths, "state_folder", lambda: folder)
    return folder


# Edits


def test_an_edit_keeps_comments_and_order_and_is_put_in_force_at_once(bench: Bench) -> None:
    bench.open(COMMENTED)
    edited = bench.settings.edit({("hardware", "lazy_encoders"): False, ("encoders", "bge.m3", "pin"): True})
    assert bench.text == COMMENTED.replace("= true ", "= false ") + "pin = true\n"
    assert bench.applied == [edited]
    assert edited.encoders[0].pin
    bench.settings.check()
    assert len(bench.applied) == 1


def test_an_edit_of_the_default_file_keeps_every_comment(bench: Bench) -> None:
    bench.open()
    comments = [line for line in bench.text.splitlines() if line.startswith("#")]
    bench.settings.edit({("hardware", "idle_timeout_seconds"): 10, ("encoders", "minilm", "pin"): True})
    assert [line for line in bench.text.splitlines() if line.startswith("#")] == comments
    assert bench.settings.read().hardware.idle_timeout_seconds == 10.0


def test_an_edit_keeps_the_line_ends(bench: Bench) -> None:
    bench.open(COMMENTED.replace("\n", "\r\n"))
    bench.settings.edit({("hardware", "idle_timeout_seconds"): 5})
    assert bench.text == COMMENTED.replace("\n", "\r\n").replace("30", "5")


def test_a_key_that_an_edit_adds_has_the_line_ends_of_the_file(bench: Bench) -> None:
    bench.open(COMMENTED.replace("\n", "\r\n"))
    bench.settings.edit({("hardware", "device"): "cpu", ("encoders", "bge.m3", "pin"): True})
    assert bench.text.count("\n") == bench.text.count("\r\n") == COMMENTED.count("\n") + 2


def test_an_edit_of_a_file_with_a_byte_order_mark_keeps_both(bench: Bench) -> None:
    bench.open("\ufeff" + COMMENTED)
    bench.settings.edit({("hardware", "idle_timeout_seconds"): 5})
    assert bench.text == "\ufeff" + COMMENTED.replace("30", "5")
    bench.settings.add("judge", NEW)
    assert bench.text == "\ufeff" + COMMENTED.replace("30", "5") + ADDED


def test_an_edit_reaches_an_encoder_that_is_written_in_dotted_keys(bench: Bench) -> None:
    bench.open(DOTTED)
    assert bench.settings.edit({("encoders", "a", "pin"): True}).encoders[0].pin
    assert bench.settings.read().encoders[0].pin


def test_none_takes_a_key_out(bench: Bench) -> None:
    bench.open(COMMENTED)
    edited = bench.settings.edit({("hardware", "idle_timeout_seconds"): None, ("hardware", "device"): None})
    assert bench.text == COMMENTED.replace("idle_timeout_seconds = 30\n", "")
    assert edited.hardware == Config().hardware


def test_an_edit_of_an_empty_file_writes_the_section(bench: Bench) -> None:
    bench.open("")
    edited = bench.settings.edit({("encoders", "minilm", "pin"): True, ("hardware", "lazy_encoders"): False})
    assert bench.settings.read() == edited
    assert (edited.encoders[0].name, edited.encoders[0].pin, edited.hardware.lazy_encoders) == ("minilm", True, False)


def test_an_edit_takes_a_hand_edit_along(bench: Bench) -> None:
    bench.open(COMMENTED)
    bench.write(COMMENTED.replace("30", "5"))
    edited = bench.settings.edit({("hardware", "lazy_encoders"): False})
    assert (edited.hardware.idle_timeout_seconds, edited.hardware.lazy_encoders) == (5.0, False)


# A new encoder


NEW = {"kind": "rerank", "model": "org/reranker"}


ADDED = '\n[encoders.judge]\nkind = "rerank"\nmodel = "org/reranker"\n'


DOTTED = 'encoders.a.kind = "dense"\nencoders.a.model = "a/b"\n\n[hardware]\ndevice = "cpu"\n'


def test_a_new_encoder_is_written_below_the_others_and_every_comment_stays(bench: Bench) -> None:
    bench.open(COMMENTED)
    added = bench.settings.add("judge", NEW)
    assert bench.text == COMMENTED + ADDED
    assert [encoder.name for encoder in added.encoders] == ["bge.m3", "judge"]
    assert bench.applied == [added]


@pytest.mark.parametrize("text", ["", "[hardware]\nlazy_encoders = true\n", None], ids=["empty", "no encoders", "none"])
def test_the_default_encoder_stays_beside_the_first_that_is_added(bench: Bench, text: str | None) -> None:
    bench.open(text)
    assert bench.settings.add("judge", NEW).encoders[:-1] == Config().encoders
    assert bench.settings.read().encoders[:-1] == Config().encoders
    assert "home" not in bench.text.partition("[encoders.minilm]")[2].partition("[encoders.judge]")[0] or text is None


@pytest.mark.parametrize("text", ["", COMMENTED], ids=["the default one", "one of the file"])
def test_a_name_that_is_taken_is_refused_and_nothing_changes(bench: Bench, text: str) -> None:
    name = bench.open(text).encoders[0].name
    with pytest.raises(SettingsError, match=rf"There is an encoder {name} already, .* change \[encoders\.{name}\] in"):
        bench.settings.add(name, NEW)
    assert bench.text == text
    assert bench.applied == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({**NEW, "kind": "rerankk"}, "must be one of: dense, sparse"),
        ({**NEW, "model": "reranker"}, "hub id"),
        ({**NEW, "aliases": ["bge.m3"]}, "already belongs to bge.m3"),
        ({"kind": "axes", "base": "nobody"}, "must be an encoder of kind dense or multi"),
    ],
)
def test_a_new_encoder_is_checked_before_anything_is_written(bench: Bench, values: dict[str, Any], said: str) -> None:
    bench.open(COMMENTED)
    with pytest.raises(SettingsError, match=said):
        bench.settings.add("judge", values)
    assert bench.text == COMMENTED
    assert bench.applied == []


@pytest.mark.parametrize(
    "text",
    [
        'encoders = {a={kind="dense", model="a/b"}}\n',
        'encoders.a = {kind="dense", model="a/b"}\n',
        DOTTED,
        '[encoders]\na.kind = "dense"\na.model = "a/b"\n[hardware]\ndevice = "cpu"\n',
        '[encoders]\na = {kind="dense", model="a/b"}\n\n# the rest\n[hardware]\n',
        '[encoders.a]\nkind = "axes"\nbase = "b"\n[[encoders.a.axes]]\nname = "n"\nanchor = "s"\n'
        '[encoders.b]\nkind = "dense"\nmodel = "a/b"\n[[encoders.a.axes]]\nname = "o"\nanchor = "t"',
    ],
    ids=["inline", "inline by a dotted key", "dotted", "dotted in a table", "inline in a table", "scattered"],
)
def test_a_new_encoder_finds_a_place_in_any_spelling_of_the_table(bench: Bench, text: str) -> None:
    others = bench.open(text).encoders
    assert bench.settings.problem is None
    added = bench.settings.add("judge", NEW).encoders
    assert added[:-1] == others
    assert added[-1].name == "judge"
    assert bench.settings.read().encoders == added


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("last", ["# a last word", "# a last word\n", "# a last word\n\n"])
def test_a_new_encoder_stands_apart_from_what_is_above_it_in_the_line_ends_of_the_file(
    bench: Bench, last: str, end: str
) -> None:
    bench.open((COMMENTED + last).replace("\n", end))
    bench.settings.add("judge", NEW)
    assert bench.text == (COMMENTED + "# a last word\n" + ADDED).replace("\n", end)


def test_where_no_table_can_be_added_it_is_said_what_to_write(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configtext, "_says", lambda text, meant: False)
    bench.open(COMMENTED)
    with pytest.raises(SettingsError, match=r"(?s)no place for another.*add this by hand:\n\[encoders.judge\]\nkind"):
        bench.settings.add("judge", NEW)
    assert bench.text == COMMENTED


# Several who write


def test_encoders_that_several_processes_add_at_once_are_all_there(bench: Bench, state: Path) -> None:
    code = """
import sys
from pathlib import Path
from engine import paths
from engine.settings.file import SettingsFile
paths.state_folder = lambda: Path(sys.argv[2])
settings = SettingsFile(Path(sys.argv[1]))
settings.open()
for number in range(5):
    settings.add(f"{sys.argv[3]}-{number}", {"kind": "dense", "model": "a/b"})
"""
    arguments = [sys.executable, "-c", code, str(bench.path), str(state)]
    children = [subprocess.Popen([*arguments, name]) for name in ("one", "two", "three")]
    bench.open()
    for number in range(5):
        bench.settings.edit({("hardware", "idle_timeout_seconds"): 40 + number})
    assert [child.wait(LIMIT) for child in children] == [0, 0, 0]
    found = bench.settings.read()
    assert len(found.encoders) == 1 + 3 * 5
    assert found.hardware.idle_timeout_seconds == 44.0


def test_one_who_writes_for_long_is_not_written_over(
    bench: Bench, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.open(COMMENTED)
    monkeypatch.setattr(configfile, "file_lock", lambda path: paths.file_lock(path, seconds=0.0))
    go = threading.Event()
    held = threading.Event()

    def hold() -> None:
        with paths.file_lock(bench.path):
            held.set()
            go.wait(LIMIT)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(LIMIT)
    with pytest.raises(SettingsError, match="Another program"):
        bench.settings.add("judge", NEW)
    go.set()
    other.join(LIMIT)
    assert bench.text == COMMENTED
    assert bench.settings.add("judge", NEW)


def test_a_state_folder_that_cannot_be_used_hinders_no_edit(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr(paths, "state_folder", lambda: tmp_path / "file" / "state")
    bench.open(COMMENTED)
    assert bench.settings.add("judge", NEW)


def test_a_process_that_was_killed_while_it_wrote_leaves_no_lock(bench: Bench, state: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from engine import paths
paths.state_folder = lambda: Path(sys.argv[2])
with paths.file_lock(Path(sys.argv[1])):
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
"""
    subprocess.run([sys.executable, "-c", code, str(bench.path), str(state)], check=False)
    assert list(state.iterdir())
    bench.open(COMMENTED)
    assert bench.settings.add("judge", NEW)


def test_what_toml_cannot_hold_beside_the_file_is_refused_and_nothing_changes(bench: Bench) -> None:
    text = "[[encoders]]\n"
    bench.open(text)
    with pytest.raises(SettingsError, match="Mend the file first"):
        bench.settings.add("judge", NEW)
    assert bench.text == text


# What an edit refuses


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (("hardware", "idle_timeout_seconds"), -1, "0 or more"),
        (("hardware", "idle_timeout_seconds"), float("nan"), "0 or more"),
        (("hardware", "device"), "gpu", "auto, cpu"),
        (("hardware", "nothing"), 1, "unknown key"),
        (("encoders", "nope", "pin"), True, "the key kind is missing"),
        (("hardware", "device"), "\ud800", "cannot be written"),
        (("hardware", "device"), object(), "cannot be written"),
        (("hardware", "device"), [None], "cannot be written"),
        (("hardware", "device"), {"a": {"b": None}}, "cannot be written"),
    ],
)
def test_an_edit_that_is_not_valid_is_refused_and_nothing_changes(
    bench: Bench, key: tuple[str, ...], value: Any, said: str
) -> None:
    bench.open(COMMENTED)
    with pytest.raises(SettingsError, match=said):
        bench.settings.edit({("hardware", "lazy_encoders"): False, key: value})
    assert bench.text == COMMENTED
    assert bench.applied == []
    assert bench.settings.problem is None


@pytest.mark.parametrize("checked", [True, False])
def test_an_edit_of_a_broken_file_is_refused_and_nothing_is_lost(bench: Bench, checked: bool) -> None:
    bench.open(COMMENTED)
    broken = COMMENTED + "half a li"
    bench.write(broken)
    if checked:
        bench.settings.check()
    with pytest.raises(SettingsError, match=r"has a mistake, so nothing was changed.*Mend the file first"):
        bench.settings.edit({("hardware", "lazy_encoders"): False})
    assert bench.text == broken
    assert bench.applied == []
    bench.write(COMMENTED)
    assert not bench.settings.edit({("hardware", "lazy_encoders"): False}).hardware.lazy_encoders


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_an_edit_on_a_full_disk_is_refused_and_nothing_is_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    bench.open(COMMENTED)

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(SettingsError, match="could not be written, so nothing was changed: No space left"):
        bench.settings.edit({("hardware", "lazy_encoders"): False})
    monkeypatch.undo()
    assert bench.text == COMMENTED
    assert list(bench.path.parent.iterdir()) == [bench.path]
    assert bench.applied == []
    assert not bench.settings.edit({("hardware", "lazy_encoders"): False}).hardware.lazy_encoders


def test_an_edit_in_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    bench = Bench(tmp_path / "file" / "settings.toml")
    bench.open()
    with pytest.raises(SettingsError, match="could not be written"):
        bench.settings.edit({("hardware", "lazy_encoders"): False})
    assert bench.applied == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows lets only administrators link")
@pytest.mark.parametrize("there", [True, False])
def test_a_linked_settings_file_stays_a_link(bench: Bench, tmp_path: Path, there: bool) -> None:
    target = tmp_path / "dotfiles" / "pilotlight.toml"
    target.parent.mkdir()
    if there:
        target.write_text(COMMENTED)
    bench.path.symlink_to(target)
    bench.open()
    bench.settings.edit({("hardware", "idle_timeout_seconds"): 5})
    assert bench.path.is_symlink()
    assert "idle_timeout_seconds = 5" in target.read_text()
    bench.settings.check()
    assert len(bench.applied) == 1

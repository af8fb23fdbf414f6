"""The settings file: what a mistake is told, what an edit keeps, and that nothing is ever lost."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from engine_fakes import LIMIT

from engine import paths
from engine.errors import SettingsError
from engine.events import Event, SettingsRefused
from engine.kinds import PARTS
from engine.settings import file as configfile, toml as configtext
from engine.settings.config import Config, EncoderConfig
from engine.settings.file import SettingsFile

COMMENTED = """\
# mine, above all
[hardware]
lazy_encoders = true   # on first use
idle_timeout_seconds = 30

# the one I use
[encoders."bge.m3"]
kind = "dense"
model = "org/name"  # from the hub
"""


class Bench:
    """A settings file in a folder of its own, with what it put in force and what it refused."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.applied: list[Config] = []
        self.told: list[Event] = []
        self.settings = SettingsFile(path)

    def write(self, text: str | bytes) -> None:
        """Write as an editor does: a new file over the old one, so that no clock's resolution can hide it."""
        beside = self.path.with_suffix(".new")
        beside.write_bytes(text.encode() if isinstance(text, str) else text)
        beside.replace(self.path)

    def open(self, text: str | bytes | None = None) -> Config:
        if text is not None:
            self.write(text)
        config = self.settings.open()
        # What `watch` does, less its thread.
        self.settings._apply, self.settings._publish = self.applied.append, self.told.append
        return config

    @property
    def text(self) -> str:
        return self.path.read_bytes().decode()


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setattr(paths, "state_folder", lambda: folder)
    return folder


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "settings.toml")
    yield bench
    bench.settings.close()


# Opening


def test_a_missing_file_is_written_with_commented_defaults(bench: Bench) -> None:
    assert bench.open() == Config()
    assert bench.settings.problem is None
    assert "# true: an encoder loads when it is first used." in bench.text
    assert bench.settings.read() == Config()


@pytest.mark.parametrize("section", ["hardware", "server", "hub"])
def test_the_commented_defaults_name_every_key_with_its_default_and_explain_it(bench: Bench, section: str) -> None:
    bench.open()
    assert tomllib.loads(bench.text)[section] == Config().as_mapping()[section]
    above, lines = "", bench.text.partition(f"[{section}]")[2].partition("\n\n")[0].splitlines()
    for line in filter(None, lines):
        assert line.startswith(("#", "port")) or above.startswith("#"), line
        above = line


def test_the_commented_defaults_name_every_key_that_an_encoder_may_have(bench: Bench) -> None:
    bench.open()
    table = bench.text.partition("[encoders.minilm]")[2]
    for field in fields(EncoderConfig):
        assert field.name in ("name", "part", "parts") or field.name in table
    assert all(part in table for parts in PARTS.values() for part in parts)


def test_reading_a_missing_file_writes_none(bench: Bench) -> None:
    assert bench.settings.read() == Config()
    assert not bench.path.exists()


def test_a_file_that_cannot_be_written_gives_the_defaults_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    bench = Bench(tmp_path / "file" / "settings.toml")
    assert bench.open() == Config()
    assert str(bench.path) in str(bench.settings.problem)


@pytest.mark.parametrize(
    "text",
    [
        "[hardware]\nidle_timeout_seconds = 7\n",
        "\ufeff[hardware]\nidle_timeout_seconds = 7\n",
        "[hardware]\r\nidle_timeout_seconds = 7\r\n",
        "hardware.idle_timeout_seconds = 7",
        "hardware = { idle_timeout_seconds = 7.0 }",
    ],
    ids=["plain", "byte order mark", "crlf", "dotted, no last newline", "inline"],
)
def test_a_file_is_read_however_it_is_spelled(bench: Bench, text: str) -> None:
    assert bench.open(text).hardware.idle_timeout_seconds == 7.0
    assert bench.settings.problem is None


def test_an_empty_file_means_the_defaults(bench: Bench) -> None:
    assert bench.open("") == Config()
    assert bench.settings.problem is None


# Mistakes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# a\n[hardware]\nidle_timeout_seconds = -1\n", (", line 3: hardware.idle_timeout_seconds: -1", "0 or more")),
        ("[hardware]\n\nidle_timeout_seconds = nan", (", line 3: hardware.idle_timeout_seconds: nan", "0 or more")),
        ("[hardware]\nidle_timeout_seconds = inf", (", line 2: hardware.idle_timeout_seconds: inf", "0 means never")),
        (f"[hardware]\nidle_timeout_seconds = {10**400}", (", line 2: hardware.idle_timeout_seconds", "0 means never")),
        ("[hardware]\nlazy_encoders = 'yes'", (', line 2: hardware.lazy_encoders: "yes"', "true or false")),
        ("[server]\nport = 70000", (", line 2: server.port: 70000", "0 to 65535")),
        ("[server]\nprot = 1", (", line 2: server.prot: unknown key", "host, port")),
        ("\n[hardwre]\n", (", line 2: hardwre: unknown section", "hardware, server, hub, encoders")),
        ("hardware.device = 'gpu'", (', line 1: hardware.device: "gpu"', "auto, cpu, cuda")),
        (COMMENTED.replace('"dense"', '"densee"'), (', line 8: encoders.bge.m3.kind: "densee"', "one of: dense")),
        (COMMENTED.replace('kind = "dense"\n', ""), (", line 7: encoders.bge.m3: the key kind is missing", "dense")),
        ("[encoders.a]\nkind='dense'\nmodel='a/b'\npinned=1", (", line 4: encoders.a.pinned: unknown key", "pin")),
        ("[hardware]\nlazy_encoders = maybe\n", ("not valid TOML", "line 2")),
        ("[hardware\n", ("not valid TOML", "line 1")),
        ("a = 1\na = 2\n", ("not valid TOML", "line 2")),
        (f"port = {'9' * 5000}", ("not valid TOML",)),
        ("a = " + "[" * 100_000, ("not valid TOML",)),
        (b"[hardware]\n# caf\xe9\n", ("not UTF-8 text (byte 16)",)),
        (b"\xff\xfe[\x00h\x00", ("not UTF-8 text (byte 0)",)),
    ],
)
def test_a_mistake_is_told_with_file_line_key_and_choices_and_changes_nothing(
    bench: Bench, text: str | bytes, said: tuple[str, ...]
) -> None:
    before = bench.open(COMMENTED)
    bench.write(text)
    content = bench.path.read_bytes()
    bench.settings.check()
    words = str(bench.settings.problem)
    assert str(bench.path) in words
    for part in said:
        assert part in words
    assert isinstance(bench.told[-1], SettingsRefused)
    assert bench.told[-1].error is bench.settings.problem
    assert bench.applied == []
    assert bench.path.read_bytes() == content
    assert bench.settings._config is before


@pytest.mark.parametrize("text", ["[hardware]\nmax_vram = '6GB'\n", "[hardware\n", b"\xff"])
def test_what_follows_a_mistake_in_the_log_is_a_sentence_of_its_own(
    bench: Bench, text: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    bench.open(COMMENTED)
    bench.write(text)
    bench.settings.check()
    before, found, after = caplog.messages[-1].partition(" The settings from before stay in force.")
    assert (before[-1], bool(found), after) == (".", True, "")
    assert not before.endswith("..")


def test_a_mistake_at_start_gives_the_defaults_and_leaves_the_file(bench: Bench) -> None:
    assert bench.open("[hardware]\nlazy_encoders = 3\n") == Config()
    assert "line 2" in str(bench.settings.problem)
    assert bench.text == "[hardware]\nlazy_encoders = 3\n"


def test_two_mistakes_are_told_each_with_its_line(bench: Bench) -> None:
    bench.open("[hardware]\nlazy_encoders = 3\n[server]\nport = -1\n")
    assert [part.partition(":")[0][-6:] for part in str(bench.settings.problem).split("\n")] == ["line 2", "line 4"]


def test_a_folder_in_the_place_of_the_file_is_told(bench: Bench) -> None:
    bench.path.mkdir()
    assert bench.open() == Config()
    assert "could not be read" in str(bench.settings.problem)


# Hand edits


def test_a_hand_edit_is_put_in_force_once(bench: Bench) -> None:
    bench.open(COMMENTED)
    bench.settings.check()
    assert bench.applied == []
    bench.write(COMMENTED.replace("30", "5"))
    bench.settings.check()
    bench.settings.check()
    assert [config.hardware.idle_timeout_seconds for config in bench.applied] == [5.0]


def test_a_mended_file_is_put_in_force_and_the_mistake_forgotten(bench: Bench) -> None:
    bench.open("broken =")
    bench.settings.check()
    assert bench.told == []
    bench.write(COMMENTED)
    bench.settings.check()
    assert bench.settings.problem is None
    assert [encoder.name for encoder in bench.applied[-1].encoders] == ["bge.m3"]


def test_a_file_that_is_taken_away_changes_nothing(bench: Bench) -> None:
    bench.open(COMMENTED)
    bench.path.unlink()
    bench.settings.check()
    assert (bench.applied, bench.told) == ([], [])
    bench.settings.edit({("hardware", "lazy_encoders"): False})
    assert "# the one I use" in bench.text


def test_the_watcher_applies_a_hand_edit_by_itself_and_stops(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configfile, "_WATCH_SECONDS", 0.01)
    bench.settings.open()
    arrived = threading.Event()
    bench.settings.watch(lambda config: arrived.set(), bench.told.append)
    bench.write(COMMENTED)
    assert arrived.wait(LIMIT)
    bench.settings.close(LIMIT)
    assert "engine-settings" not in {thread.name for thread in threading.enumerate()}


def test_the_watcher_outlives_settings_that_cannot_be_put_in_force(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(configfile, "_WATCH_SECONDS", 0.01)
    bench.settings.open()
    failed, arrived = threading.Event(), threading.Event()

    def apply(config: Config) -> None:
        if config.hardware.idle_timeout_seconds == 1.0:
            failed.set()
            raise ZeroDivisionError("ours")
        arrived.set()

    bench.settings.watch(apply, bench.told.append)
    bench.write("[hardware]\nidle_timeout_seconds = 1")
    assert failed.wait(LIMIT)
    bench.write("[hardware]\nidle_timeout_seconds = 2")
    assert arrived.wait(LIMIT)
    assert "ZeroDivisionError: ours" in caplog.text


def test_watching_tells_of_the_mistake_that_was_there_at_start(bench: Bench) -> None:
    bench.write("broken =")
    bench.settings.open()
    bench.settings.watch(bench.applied.append, bench.told.append)
    assert isinstance(bench.told[0], SettingsRefused)


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

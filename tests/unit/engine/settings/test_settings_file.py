"""The settings file: opened, read, watched, and the mistakes in it."""

from __future__ import annotations

import threading
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from engine_fakes import LIMIT
from settings_file_bench import COMMENTED, Bench

from engine.events import SettingsRefused
from engine.kinds import PARTS
from engine.settings import file as configfile
from engine.settings.config import Config, EncoderConfig

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

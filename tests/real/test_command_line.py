"""`pilotlight ...` as a person types it, with a running app and without one."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import every_kind
import picture_files
import pytest
from expected import Reference
from running import ROOT, SETTINGS, Home, Running, wait_until

from tray.cli import access, control, main, status

Pilotlight = Callable[..., subprocess.CompletedProcess[str]]

UNKNOWN = ("load_seconds", "reload_seconds", "offload_seconds", "stepped_down_because", "keep_alive_seconds")
UNKNOWN += ("steps_down_in_seconds", "error", "note", "bytes_total", "device")
NOTHING: dict[str, object] = dict.fromkeys(UNKNOWN) | {
    "status": "idle",
    "state": "on_device",
    "pinned": False,
    "download": None,
    "shared_with": [],
    "bytes_on_device": 0,
    "bytes_in_ram": 0,
    "ignored_options": [],
}
"""An encoder of which next to nothing is known, as /admin/components has it."""


@pytest.fixture
def pilotlight(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Pilotlight:
    """Runs the command in this process as the user of `home`; a process of its own takes more than a second longer."""

    def run(home: Home, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            for key in os.environ.keys() - home.environment.keys():
                patch.delenv(key)
            for key, value in home.environment.items():
                patch.setenv(key, value)
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            capsys.readouterr()
            try:
                code = main.main([*arguments])
            except SystemExit as end:
                code = end.code  # argparse ends this way after --help and after wrong use
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run


def test_the_version_is_the_installed_one(home: Home) -> None:
    assert home.command("--version").stdout == f"pilotlight {metadata.version('pilotlight')}\n"


def test_status_shows_what_runs(app: Running, pilotlight: Pilotlight) -> None:
    app.embed("x").raise_for_status()
    shown = pilotlight(app.home, "status")
    assert shown.returncode == 0
    assert f"at {app.url} (process {app.pid})" in shown.stdout
    assert "RSS " in shown.stdout
    assert "minilm (dense): idle" in shown.stdout
    found = json.loads(pilotlight(app.home, "status", "--json").stdout)
    assert (found["running"], found["pid"], found["status"]) == (True, app.pid, "ok")
    assert found["components"][0]["state"] == "on_device"
    assert found["memory"]["process"]["rss"] > 0


def test_status_shows_memory_times_and_keep_alive_of_each_encoder(app: Running, pilotlight: Pilotlight) -> None:
    app.embed("x", keep_alive="10m").raise_for_status()
    app.control("components/minilm/offload").raise_for_status()
    down = pilotlight(app.home, "status").stdout
    app.embed("x", keep_alive="10m").raise_for_status()
    up = pilotlight(app.home, "status").stdout
    app.embed("x", keep_alive=-1).raise_for_status()
    stays = pilotlight(app.home, "status").stdout
    app.control("components/minilm/unload").raise_for_status()
    time = r"\d[\d.]* m?s"
    past = rf"loaded in {time}, back in {time}, stepped down in {time}"
    little = r"[\d.]+( KiB)? / 87 MiB"
    held = "keep_alive 10 min, steps down in 10 min"
    assert re.search(rf"^minilm \(dense\): in RAM, {little}, loaded in {time}, .*unloads in 15 min$", down, re.M), down
    assert re.search(rf"^minilm \(dense\): idle, \d+ / 87 MiB on cpu, {past}, {held}$", up, re.M), up
    assert re.search(r"^minilm \(dense\): idle, .*, keep_alive: stays$", stays, re.M), stays


def test_status_says_what_it_knows_and_leaves_out_the_rest() -> None:
    assert list(status.facts(NOTHING)) == ["idle"]
    assert list(status.facts(NOTHING | {"pinned": True, "keep_alive_seconds": 0.0})) == ["idle", "pinned"]
    mib = 2**20
    some: dict[str, object] = {"bytes_in_ram": 12 * mib, "bytes_total": 87 * mib, "offload_seconds": 0.0012}
    assert list(status.facts(NOTHING | some)) == ["idle", "12 / 87 MiB", "stepped down in 1.2 ms"]
    some = {"keep_alive_seconds": 0.0, "load_seconds": 2.346, "reload_seconds": 0.0164, "note": "It writes."}
    assert list(status.facts(NOTHING | some)) == [
        "idle", "loaded in 2.35 s", "back in 16 ms", "keep_alive 0: unloads after use", "It writes.",
    ]  # fmt: skip
    some = {
        "keep_alive_seconds": 9000.0,
        "steps_down_in_seconds": 45.2,
        "error": {"message": "No disk.", "next_step": "Free some."},
    }
    assert list(status.facts(NOTHING | some)) == [
        "idle",
        "keep_alive 150 min",
        "steps down in 46 s",
        "No disk. Free some.",
    ]
    some = {"offload_seconds": 1.0, "stepped_down_because": "room for clip", "ignored_options": ["home: disk"]}
    assert list(status.facts(NOTHING | some)) == [
        "idle", "stepped down in 1 s (room for clip)", "without effect: home: disk",
    ]  # fmt: skip
    some = {"bytes_in_ram": 5 * mib, "bytes_total": 87 * mib, "shared_with": ["one", "two"]}
    assert list(status.facts(NOTHING | some)) == ["idle", "5.0 / 87 MiB", "shared with one and two"]
    some = {"status": "loading", "download": {"bytes_done": 120 * mib, "bytes_total": 470 * mib}}
    assert list(status.facts(NOTHING | some)) == ["downloading 120 of 470 MiB"]


@pytest.mark.parametrize("unknown", [{"bytes_on_device": None}, {"bytes_in_ram": None}])
def test_status_names_no_bytes_where_the_system_does_not_say(unknown: dict[str, None]) -> None:
    known: dict[str, object] = {"bytes_on_device": 5, "bytes_in_ram": 5, "bytes_total": 9}
    assert list(status.facts(NOTHING | known | unknown)) == ["idle"]


def test_a_verb_names_no_freed_bytes_where_the_system_does_not_say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Answering:
        def control(self, name: str, verb: str) -> dict[str, object]:
            assert verb == "offload"
            return {"name": name, "result": "done", "state": "in_ram", "freed_bytes": None, "reason": None}

    monkeypatch.setattr(access, "required", Answering)
    assert control._control(argparse.Namespace(all=False, name="minilm", verb="offload")) == 0
    assert capsys.readouterr().out == "minilm: done, in_ram, freed unknown\n"


def test_a_verb_that_did_nothing_says_why_and_fails(app: Running, pilotlight: Pilotlight) -> None:
    app.control("components/minilm/load").raise_for_status()
    app.control("components/minilm/pin").raise_for_status()
    try:
        refused = pilotlight(app.home, "unload", "minilm")
    finally:
        app.control("components/minilm/unpin").raise_for_status()
    assert refused.returncode == 1
    assert re.fullmatch(r"minilm: refused, on_device, freed 0 MiB: .*\bpinned\b.*\n", refused.stdout)


def test_without_a_running_app_status_fails_and_quit_has_nothing_to_do(home: Home) -> None:
    status = home.command("status")
    assert (status.returncode, status.stdout) == (1, "Pilotlight is not running.\n")
    status = home.command("status", "--json")
    assert (status.returncode, json.loads(status.stdout)) == (1, {"running": False})
    quitted = home.command("quit")
    assert (quitted.returncode, quitted.stdout) == (0, "Pilotlight is not running.\n")
    load = home.command("load", "minilm")
    assert load.returncode == 1
    assert load.stderr == "pilotlight: Pilotlight is not running. Start it with: pilotlight\n"


@pytest.fixture(params=["running", "in-process"])
def user(request: pytest.FixtureRequest, home: Home) -> Home:
    """Somebody whose Pilotlight runs, and somebody whose does not."""
    if request.param == "running":
        running: Running = request.getfixturevalue("app")
        return running.home
    return home


def test_embed_prints_one_json_line_per_text(user: Home, reference: Reference) -> None:
    texts = [text for text in reference.texts if text]
    embedded = user.command("embed", "--encoder", "all-minilm", texts[0], "-", stdin="\n".join(texts[1:]) + "\n")
    assert embedded.returncode == 0, embedded.stderr
    lines = [json.loads(line) for line in embedded.stdout.splitlines()]
    assert [line["text"] for line in lines] == texts
    assert reference.agrees([line["embedding"] for line in lines], texts)
    assert user.contacted() <= {"127.0.0.1", "::1", "localhost"}


def test_embed_with_nothing_on_standard_input_prints_nothing(app: Running, pilotlight: Pilotlight) -> None:
    embedded = pilotlight(app.home, "embed")
    assert (embedded.returncode, embedded.stdout) == (0, "")


def test_an_unknown_encoder_is_named_with_those_that_exist(user: Home, pilotlight: Pilotlight) -> None:
    refused = pilotlight(user, "embed", "--encoder", "nobody", "x")
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "nobody" in refused.stderr
    assert "Configured are: minilm." in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("which", ["minilm", "--all"])
def test_load_offload_and_unload_move_the_encoder_and_say_so(app: Running, which: str, pilotlight: Pilotlight) -> None:
    for verb, state in (("unload", "unloaded"), ("load", "on_device"), ("offload", "in_ram"), ("load", "on_device")):
        moved = pilotlight(app.home, verb, which)
        assert moved.returncode == 0, moved.stderr
        assert moved.stdout.startswith(f"minilm: done, {state}, freed ")
        assert app.component()["state"] == state


def test_a_verb_for_an_unknown_encoder_fails_with_the_names_that_exist(app: Running, pilotlight: Pilotlight) -> None:
    refused = pilotlight(app.home, "load", "nobody")
    assert refused.returncode == 1
    assert "Configured are: minilm." in refused.stderr


def test_an_encoder_added_while_it_runs_answers_within_seconds_and_alike_without_it(
    start: Callable[..., Running], pilotlight: Pilotlight
) -> None:
    own = start()
    added = pilotlight(own.home, "add", "moods", "axes", "minilm", "--alias", "sema")
    assert added.returncode == 0, added.stderr
    assert added.stdout.splitlines() == [
        f"Added moods (axes) to {own.home.settings}.",
        "The running Pilotlight knows it within a second.",
    ]
    assert "# The owner's comment." in own.home.settings.read_text(encoding="utf-8")
    wait_until(lambda: len(own.http.get("/admin/components").json()["components"]) == 2, 10, "the new encoder")
    listed = pilotlight(own.home, "encoders").stdout.splitlines()
    assert [line.split()[:2] for line in listed] == [["NAME", "KIND"], ["minilm", "dense"], ["moods", "axes"]]
    there = pilotlight(own.home, "axes", "--encoder", "sema", "--top", "3", "What a lovely day!")
    own.end()
    here = pilotlight(own.home, "axes", "--encoder", "sema", "--top", "3", "What a lovely day!")
    first, second = (json.loads(shown.stdout)["weights"] for shown in (there, here))
    assert list(first) == list(second)
    assert first == pytest.approx(second, abs=1e-5)
    assert len(first) == 3
    listed = pilotlight(own.home, "encoders").stdout.splitlines()
    assert listed[2].split() == ["moods", "axes", "axes:minilm"]
    assert "not running" in listed[-1]
    again = pilotlight(own.home, "add", "moods", "axes", "minilm")
    assert again.returncode == 1
    assert "There is an encoder moods already" in again.stderr


def test_settings_that_are_not_in_force_are_told_where_nobody_sees_the_menu(
    start: Callable[..., Running], pilotlight: Pilotlight
) -> None:
    own = start()
    problem = pilotlight(own.home, "status", "--json")
    assert json.loads(problem.stdout)["settings_problem"] is None
    own.home.settings.write_text("[hardware]\nlazy_encoders = 3\n", encoding="utf-8")
    said = f"The settings file is not in force: {own.home.settings}, line 2: hardware.lazy_encoders: 3"
    wait_until(lambda: said in pilotlight(own.home, "status").stdout, 10, "the mistake in the status")
    assert said in pilotlight(own.home, "encoders").stdout.splitlines()[-1]


def test_every_question_is_answered_by_the_encoder_of_its_kind(
    tmp_path: Path, start: Callable[..., Running], pilotlight: Pilotlight
) -> None:
    (tmp_path / "models").mkdir()
    app = start(settings=every_kind.settings(tmp_path / "models"))
    picture = tmp_path / "a.png"
    picture.write_bytes(picture_files.written(picture_files.picture()))
    found = {}
    for command, *arguments in (
        ("sparse", "--top", "4", "a flame"),
        ("rerank", "fire", "a flame", "a fish"),
        ("classify", "--hypothesis", "it burns", "a flame"),
        ("embed-image", str(picture)),
        ("tag", "Anna lives in Paris ."),
        ("axes", "--top", "3", "a flame"),
    ):
        done = pilotlight(app.home, command, *arguments)
        assert done.returncode == 0, done.stderr
        found[command] = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found["sparse"][0]["weights"]) == 4
    assert sorted(line["text"] for line in found["rerank"]) == ["a fish", "a flame"]
    assert set(found["classify"][0]["labels"]) == set(every_kind.LABELS)
    assert found["embed-image"][0]["image"] == str(picture)
    assert [token["text"] for token in found["tag"][0]["tokens"]][:2] == ["Anna", "lives"]
    assert len(found["axes"][0]["weights"]) == 3
    listed = [line.split()[0] for line in pilotlight(app.home, "encoders").stdout.splitlines()]
    parts = [name for name in every_kind.COMPONENTS if "." in name]
    assert [name for name in listed if "." in name] == parts
    assert listed[listed.index(parts[0]) - 1] == "photo"


def test_listing_and_adding_encoders_loads_no_model_library(home: Home) -> None:
    heavy = ["torch", "transformers", "sentence_transformers", "spacy", "open_clip", "numpy", "fastapi"]
    for command in (["encoders"], ["encoders", "--known"], ["add", "x", "tag", "en_core_web_sm"]):
        code = (
            f"import sys; from tray.cli.main import main; main({command!r})\nprint({{*{heavy!r}}} & {{*sys.modules}})"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=home.environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    "arguments", [("load",), ("load", "minilm", "--all"), ("config",), ("dance",), ("run", "--port", "70000")]
)
def test_wrong_use_exits_2(home: Home, arguments: tuple[str, ...], pilotlight: Pilotlight) -> None:
    refused = pilotlight(home, *arguments)
    assert refused.returncode == 2
    assert "usage: pilotlight" in refused.stderr


def test_config_says_where_the_settings_are_and_what_they_say(home: Home, pilotlight: Pilotlight) -> None:
    assert pilotlight(home, "config", "path").stdout == f"{home.settings}\n"
    shown = pilotlight(home, "config", "show").stdout
    assert "idle_timeout_seconds = 0" in shown
    assert "unload_timeout_seconds = 900" in shown
    assert "[encoders.minilm]" in shown
    home.settings.write_text(SETTINGS.replace("dense", "sparkling"), encoding="utf-8")
    refused = pilotlight(home, "config", "show")
    assert refused.returncode == 1
    assert f"{home.settings}, line 8" in refused.stderr
    assert "dense" in refused.stderr

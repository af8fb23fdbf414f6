"""`pilotlight ...` as a person types it, with a running app and without one."""

from __future__ import annotations

import argparse
import json
import re
from importlib import metadata

import pytest
from expected import Reference
from running import SETTINGS, Home, Running

from tray import cli

UNKNOWN = ("load_seconds", "reload_seconds", "offload_seconds", "stepped_down_because", "keep_alive_seconds")
UNKNOWN += ("steps_down_in_seconds", "error", "note", "bytes_total", "device")
NOTHING: dict[str, object] = dict.fromkeys(UNKNOWN) | {
    "status": "idle",
    "state": "on_device",
    "pinned": False,
    "bytes_on_device": 0,
    "bytes_in_ram": 0,
    "ignored_options": [],
}
"""An encoder of which next to nothing is known, as /admin/components has it."""


def test_the_version_is_the_installed_one(home: Home) -> None:
    assert home.command("--version").stdout == f"pilotlight {metadata.version('pilotlight')}\n"


def test_status_shows_what_runs(app: Running) -> None:
    app.embed("x").raise_for_status()
    shown = app.home.command("status")
    assert shown.returncode == 0
    assert f"at {app.url} (process {app.pid})" in shown.stdout
    assert "RSS " in shown.stdout
    assert "minilm (dense): idle" in shown.stdout
    found = json.loads(app.home.command("status", "--json").stdout)
    assert (found["running"], found["pid"], found["status"]) == (True, app.pid, "ok")
    assert found["components"][0]["state"] == "on_device"
    assert found["memory"]["process"]["rss"] > 0


def test_status_shows_memory_times_and_keep_alive_of_each_encoder(app: Running) -> None:
    app.embed("x", keep_alive="10m").raise_for_status()
    app.control("components/minilm/offload").raise_for_status()
    down = app.home.command("status").stdout
    app.embed("x", keep_alive="10m").raise_for_status()
    up = app.home.command("status").stdout
    app.embed("x", keep_alive=-1).raise_for_status()
    stays = app.home.command("status").stdout
    app.control("components/minilm/unload").raise_for_status()
    time = r"\d[\d.]* m?s"
    past = rf"loaded in {time}, back in {time}, stepped down in {time}"
    little = r"[\d.]+( KiB)? / 87 MiB"
    held = "keep_alive 10 min, steps down in 10 min"
    assert re.search(rf"^minilm \(dense\): in RAM, {little}, loaded in {time}, .*unloads in 15 min$", down, re.M), down
    assert re.search(rf"^minilm \(dense\): idle, \d+ / 87 MiB on cpu, {past}, {held}$", up, re.M), up
    assert re.search(r"^minilm \(dense\): idle, .*, keep_alive: stays$", stays, re.M), stays


def test_status_says_what_it_knows_and_leaves_out_the_rest() -> None:
    assert list(cli._facts(NOTHING)) == ["idle"]
    assert list(cli._facts(NOTHING | {"pinned": True, "keep_alive_seconds": 0.0})) == ["idle", "pinned"]
    mib = 2**20
    some: dict[str, object] = {"bytes_in_ram": 12 * mib, "bytes_total": 87 * mib, "offload_seconds": 0.0012}
    assert list(cli._facts(NOTHING | some)) == ["idle", "12 / 87 MiB", "stepped down in 1.2 ms"]
    some = {"keep_alive_seconds": 0.0, "load_seconds": 2.346, "reload_seconds": 0.0164, "note": "It writes."}
    assert list(cli._facts(NOTHING | some)) == [
        "idle", "loaded in 2.35 s", "back in 16 ms", "keep_alive 0: unloads after use", "It writes.",
    ]  # fmt: skip
    some = {"keep_alive_seconds": 9000.0, "steps_down_in_seconds": 45.2, "error": {"message": "No disk."}}
    assert list(cli._facts(NOTHING | some)) == ["idle", "keep_alive 150 min", "steps down in 46 s", "No disk."]
    some = {"offload_seconds": 1.0, "stepped_down_because": "room for clip", "ignored_options": ["home: disk"]}
    assert list(cli._facts(NOTHING | some)) == [
        "idle", "stepped down in 1 s (room for clip)", "without effect: home: disk",
    ]  # fmt: skip


@pytest.mark.parametrize("unknown", [{"bytes_on_device": None}, {"bytes_in_ram": None}])
def test_status_names_no_bytes_where_the_system_does_not_say(unknown: dict[str, None]) -> None:
    known: dict[str, object] = {"bytes_on_device": 5, "bytes_in_ram": 5, "bytes_total": 9}
    assert list(cli._facts(NOTHING | known | unknown)) == ["idle"]


def test_a_verb_names_no_freed_bytes_where_the_system_does_not_say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Answering:
        def control(self, name: str, verb: str) -> dict[str, object]:
            assert verb == "offload"
            return {"name": name, "result": "done", "state": "in_ram", "freed_bytes": None, "reason": None}

    monkeypatch.setattr(cli, "_required", Answering)
    assert cli._control(argparse.Namespace(all=False, name="minilm", verb="offload")) == 0
    assert capsys.readouterr().out == "minilm: done, in_ram, freed unknown\n"


def test_a_verb_that_did_nothing_says_why_and_fails(app: Running) -> None:
    app.control("components/minilm/load").raise_for_status()
    app.control("components/minilm/pin").raise_for_status()
    try:
        refused = app.home.command("unload", "minilm")
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


def test_embed_with_nothing_on_standard_input_prints_nothing(app: Running) -> None:
    embedded = app.home.command("embed")
    assert (embedded.returncode, embedded.stdout) == (0, "")


def test_an_unknown_encoder_is_named_with_those_that_exist(user: Home) -> None:
    refused = user.command("embed", "--encoder", "nobody", "x")
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "nobody" in refused.stderr
    assert "Configured are: minilm." in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("which", ["minilm", "--all"])
def test_load_offload_and_unload_move_the_encoder_and_say_so(app: Running, which: str) -> None:
    for verb, state in (("unload", "unloaded"), ("load", "on_device"), ("offload", "in_ram"), ("load", "on_device")):
        moved = app.home.command(verb, which)
        assert moved.returncode == 0, moved.stderr
        assert moved.stdout.startswith(f"minilm: done, {state}, freed ")
        assert app.component()["state"] == state


def test_a_verb_for_an_unknown_encoder_fails_with_the_names_that_exist(app: Running) -> None:
    refused = app.home.command("load", "nobody")
    assert refused.returncode == 1
    assert "Configured are: minilm." in refused.stderr


@pytest.mark.parametrize(
    "arguments", [("load",), ("load", "minilm", "--all"), ("config",), ("dance",), ("run", "--port", "70000")]
)
def test_wrong_use_exits_2(home: Home, arguments: tuple[str, ...]) -> None:
    refused = home.command(*arguments)
    assert refused.returncode == 2
    assert "usage: pilotlight" in refused.stderr


def test_config_says_where_the_settings_are_and_what_they_say(home: Home) -> None:
    assert home.command("config", "path").stdout == f"{home.settings}\n"
    shown = home.command("config", "show").stdout
    assert "idle_timeout_seconds = 0" in shown
    assert "unload_timeout_seconds = 900" in shown
    assert "[encoders.minilm]" in shown
    home.settings.write_text(SETTINGS.replace("dense", "sparkling"), encoding="utf-8")
    refused = home.command("config", "show")
    assert refused.returncode == 1
    assert f"{home.settings}, line 8" in refused.stderr
    assert "dense" in refused.stderr

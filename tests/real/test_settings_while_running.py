"""Hand edits of the settings file, good and bad, while the program runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from running import SETTINGS, Home, Running, wait_until


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(Home(tmp_path_factory.mktemp("edited")))
    yield running
    running.end()


BAD = {
    "a negative timeout": ("idle_timeout_seconds = 0", "idle_timeout_seconds = -3", 5, "0 or more"),
    "NaN": ("idle_timeout_seconds = 0", "idle_timeout_seconds = nan", 5, "0 or more"),
    "infinity": ("idle_timeout_seconds = 0", "idle_timeout_seconds = inf", 5, "seconds; 0 means never"),
    "a huge number": ("idle_timeout_seconds = 0", f"idle_timeout_seconds = {'9' * 400}", 5, "seconds"),
    "a number with more digits than Python reads": (
        "idle_timeout_seconds = 0",
        f"idle_timeout_seconds = {'9' * 5000}",
        None,
        "",
    ),
    "a text for a number": ("idle_timeout_seconds = 0", 'idle_timeout_seconds = "30"', 5, "number of seconds"),
    "a number for a boolean": ("lazy_encoders = true", "lazy_encoders = 1", 3, "true or false"),
    "an unknown device": ('device = "cpu"', 'device = "gpu"', 4, "auto, cpu, cuda, cuda:N, mps"),
    "an unknown kind": ('kind = "dense"', 'kind = "sparkling"', 8, "dense"),
    "an unknown key": ("device =", "devise =", 4, "lazy_encoders, eager_load, device"),
    "an unknown section": ("[hardware]", "[hardwear]", 2, "hardware, server, hub, encoders"),
    "an unknown builtin": ("builtin:all-MiniLM-L6-v2", "builtin:nothing", 9, "builtin:all-MiniLM-L6-v2"),
    "aliases that are no list": ('["all-minilm"]', '"all-minilm"', 10, "list of texts"),
    "no TOML at all": ("[hardware]", "[hardware", 2, "TOML"),
}

KEYS = {"an unknown builtin": "encoders.minilm.model", "aliases that are no list": "encoders.minilm.aliases"}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_edit_changes_nothing_and_is_named_with_file_line_key_and_choices(running: Running, what: str) -> None:
    good, bad, line, choices = BAD[what]
    before = running.config()
    settings = running.home.settings
    settings.write_text(SETTINGS.replace(good, bad), encoding="utf-8")
    wait_until(lambda: running.config()["problem"] not in (None, before["problem"]), 5, "the problem is said")
    config = running.config()
    problem = config["problem"]
    assert str(settings) in problem
    assert choices in problem
    assert len(problem) < 1000
    if line is not None:
        assert f"line {line}" in problem
    if line is not None and choices != "TOML":
        assert KEYS.get(what, bad.partition(" =")[0].strip("[]")) in problem
    assert config | {"problem": None} == before | {"problem": None}

    change = {"hardware": {"idle_timeout_seconds": 7}}
    patched = running.http.patch("/admin/config", json=change, headers=running.authorized)
    assert patched.status_code == 422, "the owner's half-finished edit is not written over"
    assert settings.read_text(encoding="utf-8") == SETTINGS.replace(good, bad)


def test_a_good_edit_takes_the_problem_away_and_is_in_force_soon(running: Running) -> None:
    settings = running.home.settings
    settings.write_text(SETTINGS.replace("idle_timeout_seconds = 0", "idle_timeout_seconds = 11"), encoding="utf-8")
    wait_until(lambda: running.config()["problem"] is None, 5, "the mended file is in force")
    assert running.config()["hardware"]["idle_timeout_seconds"] == 11

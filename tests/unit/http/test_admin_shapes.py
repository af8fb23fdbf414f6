"""Status and control, field by field."""

from __future__ import annotations

from pathlib import Path

import pytest
from http_fakes import Caller

from engine.configfile import SettingsFile
from engine.engine import Engine
from engine.state import State

COMPONENT = {
    "name", "kind", "model", "revision", "state", "status", "loaded", "device", "bytes_on_device", "bytes_in_ram",
    "bytes_total", "last_used_by", "in_flight", "queued", "last_used_seconds_ago", "steps_down_in_seconds", "pinned",
    "load_seconds", "reload_seconds", "offload_seconds", "loads", "error", "ignored_options",
}  # fmt: skip


def test_health_says_who_is_there(caller: Caller) -> None:
    health = caller.send("GET", "/health").json()
    assert set(health) == {"status", "ready", "pid", "version", "uptime_seconds", "instance_id"}
    assert (health["status"], health["ready"], health["version"]) == ("ok", True, "1.2.3")
    assert caller.send("GET", "/ready").json() == {"ready": True}


def test_components_have_every_field_of_the_contract(caller: Caller) -> None:
    found = caller.send("GET", "/admin/components").json()
    assert set(found) >= {"components", "count", "last_activity_s_ago", "idle_threshold_s"}
    assert (found["count"], found["last_activity_s_ago"], found["idle_threshold_s"]) == (3, None, 0)
    for component in found["components"]:
        assert component.keys() >= COMPONENT
        assert (component["state"], component["status"]) == ("unloaded", "idle (not loaded)")
        assert component["bytes_total"] is component["last_used_seconds_ago"] is component["load_seconds"] is None


def test_memory_is_null_where_unknown(caller: Caller) -> None:
    memory = caller.send("GET", "/admin/memory").json()
    assert memory["process"].keys() >= {"rss", "private"}
    assert memory["process"]["rss"] > 0
    assert set(memory["system"]) == {"ram_total", "ram_available"}
    assert isinstance(memory["devices"], list)


def test_looking_loads_nothing(caller: Caller, engine: Engine) -> None:
    for path in ("/health", "/ready", "/v1/models", "/v1/models/fake", "/admin/components", "/admin/memory"):
        caller.send("GET", path)
    assert {view.state for view in engine.views()} == {State.UNLOADED}
    assert engine.view("fake").last_used is None


def test_each_verb_answers_its_outcome(caller: Caller) -> None:
    for verb, state, freed in [
        ("load", "on_device", 0),
        ("pin", "on_device", 0),
        ("unload", "on_device", 0),
        ("unpin", "on_device", 0),
        ("offload", "unloaded", 1000),
        ("retry", "on_device", 0),
        ("unload", "unloaded", 1000),
    ]:
        pinned = caller.send("GET", "/admin/components").json()["components"][0]["pinned"]
        outcome = caller.send("POST", f"/admin/components/other-name/{verb}", authorized=True).json()
        assert set(outcome) == {"name", "result", "state", "freed_bytes", "seconds"}
        assert outcome["name"] == "fake"
        assert outcome["result"] == ("refused" if pinned and verb == "unload" else "done")
        assert (outcome["state"], outcome["freed_bytes"]) == (state, freed)


def test_the_verbs_for_all_answer_one_outcome_each(caller: Caller) -> None:
    for verb in ("load", "offload", "unload"):
        results = caller.send("POST", f"/admin/{verb}", authorized=True).json()["results"]
        assert [outcome["name"] for outcome in results] == ["fake", "failing", "missing"]
        if verb == "load":
            assert [outcome["result"] for outcome in results] == ["done", "refused", "refused"]


def test_a_verb_on_a_broken_encoder_is_503_in_our_shape(caller: Caller) -> None:
    failed = caller.send("POST", "/admin/components/failing/load", authorized=True)
    assert (failed.status_code, failed.headers["Retry-After"]) == (503, "5")
    assert failed.json() == {"detail": "The disk is on fire.", "title": "Load failed", "next_step": "Put it out."}
    error = caller.send("GET", "/admin/components").json()["components"][1]["error"]
    assert (error["title"], error["message"], error["next_step"]) == (
        "Load failed",
        "The disk is on fire.",
        "Put it out.",
    )
    assert 0 < error["retry_in_seconds"] <= 5
    missing = caller.send("POST", "/admin/components/missing/load", authorized=True)
    assert missing.status_code == 503
    assert "Retry-After" not in missing.headers


@pytest.mark.parametrize("path", ["/admin/components/nobody/load", "/admin/components/fake/explode", "/admin/nothing"])
def test_what_is_not_there_is_404(caller: Caller, path: str) -> None:
    answer = caller.send("POST", path, authorized=True)
    assert answer.status_code == 404
    assert set(answer.json()) == {"detail", "title", "next_step"}


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/embeddings"), ("DELETE", "/v1/models"), ("POST", "/health")])
def test_a_wrong_method_is_405_in_the_paths_own_shape(caller: Caller, method: str, path: str) -> None:
    answer = caller.send(method, path)
    assert answer.status_code == 405
    assert answer.headers["Allow"]
    assert ("error" in answer.json()) == path.startswith("/v1")


def test_a_change_is_written_to_the_file_and_in_force(caller: Caller, engine: Engine, settings: SettingsFile) -> None:
    change = {"hardware": {"idle_timeout_seconds": 12.5}, "encoders": {"other-name": {"pin": True}}}
    answer = caller.send("PATCH", "/admin/config", json=change, authorized=True)
    assert answer.status_code == 200
    assert answer.json()["hardware"]["idle_timeout_seconds"] == 12.5
    assert answer.json()["problem"] is None
    assert Path(answer.json()["file"]) == settings.path
    assert engine.view("fake").pinned
    assert engine.view("fake").idle_timeout_seconds == 12.5
    assert "idle_timeout_seconds = 12.5  # off" in settings.path.read_text(encoding="utf-8")


def test_without_a_settings_file_nothing_can_be_changed(bare_caller: Caller) -> None:
    answer = bare_caller.send("PATCH", "/admin/config", json={"hardware": {}}, authorized=True)
    assert answer.status_code == 403
    assert bare_caller.send("GET", "/admin/config", authorized=True).json()["file"] is None

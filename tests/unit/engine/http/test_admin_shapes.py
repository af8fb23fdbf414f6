"""Status and control, field by field."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from http_fakes import Caller

from engine.devices.readings import DeviceReading, Reading
from engine.engine import Engine
from engine.http import admin, shapes
from engine.http.responses import json_response
from engine.settings.config import Config
from engine.settings.file import SettingsFile
from engine.state import EncoderView, State

COMPONENT = {
    "name", "kind", "model", "revision", "state", "status", "loaded", "device", "bytes_on_device", "bytes_in_ram",
    "bytes_total", "last_used_by", "in_flight", "queued", "last_used_seconds_ago", "steps_down_in_seconds", "pinned",
    "load_seconds", "reload_seconds", "offload_seconds", "loads", "error", "ignored_options", "keep_alive_seconds",
    "note",
}  # fmt: skip

NOTHING = Reading(at=0.0, rss=1000, ram_total=9000, ram_available=5000)


def test_health_says_who_is_there(caller: Caller) -> None:
    health = caller.send("GET", "/health").json()
    assert set(health) == {"status", "ready", "pid", "version", "uptime_seconds", "instance_id"}
    assert (health["status"], health["ready"], health["version"]) == ("ok", True, "1.2.3")
    assert caller.send("GET", "/ready").json() == {"ready": True}


def test_a_closed_engine_is_not_ready(caller: Caller, engine: Engine) -> None:
    engine.close()
    ready = caller.send("GET", "/ready")
    assert (ready.status_code, ready.json()) == (503, {"ready": False})


def test_components_have_every_field_of_the_contract(caller: Caller) -> None:
    found = caller.send("GET", "/admin/components").json()
    assert set(found) >= {"components", "count", "last_activity_s_ago", "idle_threshold_s"}
    assert (found["count"], found["last_activity_s_ago"], found["idle_threshold_s"]) == (3, None, 0)
    for component in found["components"]:
        assert component.keys() >= COMPONENT
        assert (component["state"], component["status"]) == ("unloaded", "idle (not loaded)")
        assert component["bytes_total"] is component["last_used_seconds_ago"] is component["load_seconds"] is None
        assert component["keep_alive_seconds"] is component["note"] is None


def test_a_folder_whose_name_is_no_text_is_spelled_out(engine: Engine) -> None:
    view = replace(engine.views()[0], model="/r\udce9sum\udce9", note="It is /r\udce9sum\udce9.")
    body = json.loads(json_response(shapes.components([view], 0.0, 0.0)).body)
    assert [body["components"][0][key] for key in ("model", "note")] == [
        "/r\\udce9sum\\udce9",
        "It is /r\\udce9sum\\udce9.",
    ]


def test_memory_is_null_where_unknown(caller: Caller) -> None:
    memory = caller.send("GET", "/admin/memory").json()
    assert memory["process"].keys() >= {"rss", "private"}
    assert memory["process"]["rss"] > 0
    assert set(memory["system"]) == {"ram_total", "ram_available"}
    assert isinstance(memory["devices"], list)


def test_memory_says_of_each_gpu_what_is_known_and_null_for_the_rest() -> None:
    engine = seen()
    known = DeviceReading(0, "GeForce", 8000, 2000, 6000, 500, 200, 0.25, 300, 1500, "cuda:0", False)
    engine.reading = replace(NOTHING, devices=(known, DeviceReading(1, "Silent", *[None] * 6)))
    first, second = engine.ask("/admin/memory")["devices"]
    assert first == {
        "index": 0,
        "name": "GeForce",
        "vram_total": 8000,
        "vram_used": 2000,
        "vram_free": 6000,
        "process_vram": 500,
        "allocated_vram": 300,
        "context_bytes": 200,
        "others_vram": 1500,
        "utilisation": 0.25,
        "device": "cuda:0",
        "shares_ram": False,
    }
    assert second == dict.fromkeys(first) | {"index": 1, "name": "Silent"}


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
        assert set(outcome) == {"name", "result", "state", "freed_bytes", "seconds", "reason"}
        assert outcome["name"] == "fake"
        assert outcome["result"] == ("refused" if pinned and verb == "unload" else "done")
        assert outcome["reason"] or outcome["result"] == "done"
        assert verb != "offload" or outcome["reason"] == "A fake rests nowhere."
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


class Seen:
    """An engine that has nothing but one encoder, seen as `view`; counts who asks for measured figures."""

    config = Config()
    ready = True

    def __init__(self, view: EncoderView) -> None:
        self.seen = view
        self.reading = NOTHING
        self.measured: list[tuple[bool, bool]] = []

    def clock(self) -> float:
        return 100.0

    def views(self, measured: bool = False) -> tuple[EncoderView, ...]:
        self.measured.append((measured, threading.current_thread() is threading.main_thread()))
        return (self.seen,)

    def read_memory(self, detailed: bool = False) -> Reading:
        return self.reading

    def ask(self, path: str) -> dict[str, Any]:
        """What a route answers."""
        routes = FastAPI()
        routes.include_router(admin.router(self, None, "1", lambda: None))  # type: ignore[arg-type]
        return dict(Caller(routes, "").send("GET", path).json())

    def component(self) -> dict[str, Any]:
        """What the route says of the one encoder."""
        [found] = self.ask("/admin/components")["components"]
        return dict(found)


def seen(state: State = State.ON_DEVICE, **facts: Any) -> Seen:
    timeouts = {"idle_timeout_seconds": 30.0, "unload_timeout_seconds": 900.0}
    view = EncoderView(name="e", kind="dense", model="m", aliases=(), state=state, **timeouts)
    return Seen(replace(view, last_used=90.0, **facts))


@pytest.mark.parametrize(
    ("facts", "countdown"),
    [
        ({}, 20.0),
        ({"keep_alive_seconds": 60.0}, 50.0),
        ({"keep_alive_seconds": 60.0, "idle_timeout_seconds": 0.0}, 50.0),
        ({"keep_alive_seconds": 60.0, "in_flight": 1}, 60.0),
        ({"keep_alive_seconds": 4.0}, 0.0),
        ({"keep_alive_seconds": 0.0}, 0.0),
        ({"keep_alive_seconds": 0.0, "in_flight": 1}, None),
        ({"keep_alive_seconds": -1.0}, None),
        ({"keep_alive_seconds": 60.0, "pinned": True}, None),
        ({"state": State.IN_RAM, "stepped_down_at": 95.0}, 895.0),
    ],
)
def test_the_countdown_is_the_keep_alives_where_there_is_one(facts: dict[str, Any], countdown: float | None) -> None:
    component = seen(**facts).component()
    assert component["keep_alive_seconds"] == facts.get("keep_alive_seconds")
    assert component["steps_down_in_seconds"] == countdown


def test_a_note_is_shown_though_nothing_failed() -> None:
    component = seen(note="It writes into its weights.").component()
    assert (component["note"], component["error"]) == ("It writes into its weights.", None)


def test_the_figures_are_measured_and_on_another_thread_than_the_one_that_serves() -> None:
    engine = seen()
    engine.component()
    assert engine.measured == [(True, False)]


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


def test_eagerness_and_the_bound_of_keep_alive_can_be_changed(caller: Caller, engine: Engine) -> None:
    change = {
        "hardware": {"eager_load": False, "max_keep_alive_seconds": 600},
        "encoders": {"fake": {"lazy_encoders": True, "eager_load": False}},
    }
    answer = caller.send("PATCH", "/admin/config", json=change, authorized=True)
    assert answer.status_code == 200, answer.text
    assert engine.config.hardware.max_keep_alive_seconds == 600
    assert (engine.config.encoders[0].lazy_encoders, engine.config.encoders[0].eager_load) == (True, False)
    assert answer.json()["encoders"]["fake"]["eager_load"] is False
    taken_out = {"encoders": {"fake": {"lazy_encoders": None}}}
    assert caller.send("PATCH", "/admin/config", json=taken_out, authorized=True).status_code == 200
    assert engine.config.encoders[0].lazy_encoders is None


def test_without_a_settings_file_nothing_can_be_changed(bare_caller: Caller) -> None:
    answer = bare_caller.send("PATCH", "/admin/config", json={"hardware": {}}, authorized=True)
    assert answer.status_code == 403
    assert bare_caller.send("GET", "/admin/config", authorized=True).json()["file"] is None

"""Encoders of several parts, and encoders that share weights, in status and control."""

from __future__ import annotations

from pathlib import Path

import pytest
from http_fakes import Caller, written

from engine.settings.file import SettingsFile
from engine.state import Outcome, Result, State

SETTINGS = """\
[encoders.photo]
kind = "image_text"  # two towers
model = "org/clip"
aliases = ["clip"]

[encoders.one]
kind = "dense"
model = "org/same"

[encoders.two]
kind = "dense"
model = "org/same"
"""


@pytest.fixture
def settings(tmp_path: Path) -> SettingsFile:
    return written(tmp_path, SETTINGS)


def states(caller: Caller) -> dict[str, str]:
    return {one["name"]: one["state"] for one in caller.send("GET", "/admin/components").json()["components"]}


def control(caller: Caller, path: str) -> dict[str, object]:
    answer = caller.send("POST", f"/admin/components/{path}", authorized=True)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def test_each_part_has_a_row_of_its_own(caller: Caller) -> None:
    assert states(caller) == dict.fromkeys(("photo.text", "photo.image", "one", "two"), "unloaded")


def test_a_verb_reaches_one_part_or_all_of_them(caller: Caller) -> None:
    assert control(caller, "photo.text/load")["name"] == "photo.text"
    assert states(caller) == {
        "photo.text": "on_device",
        "photo.image": "unloaded",
        "one": "unloaded",
        "two": "unloaded",
    }
    assert control(caller, "clip/load") | {"seconds": 0} == {
        "name": "clip",
        "result": "done",
        "state": "on_device",
        "freed_bytes": 0,
        "seconds": 0,
        "reason": None,
    }
    assert states(caller)["photo.image"] == "on_device"
    assert control(caller, "photo/unload")["state"] == "unloaded"


def test_a_part_is_pinned_in_the_file_in_a_table_of_its_own(caller: Caller, settings: SettingsFile) -> None:
    answer = caller.send(
        "PATCH",
        "/admin/config",
        authorized=True,
        json={"encoders": {"photo.text": {"pin": True}, "two": {"pin": True}}},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["encoders"]["photo"]["text"] == {"pin": True}
    text = settings.path.read_text(encoding="utf-8")
    assert "# two towers" in text
    pinned = {c["name"]: c["pinned"] for c in caller.send("GET", "/admin/components").json()["components"]}
    assert pinned == {"photo.text": True, "photo.image": False, "one": True, "two": True}


def test_those_who_share_weights_say_so(caller: Caller) -> None:
    control(caller, "two/load")
    rows = {row["name"]: row for row in caller.send("GET", "/admin/components").json()["components"]}
    assert rows["one"]["state"] == rows["two"]["state"] == "on_device"
    assert (rows["one"]["shared_with"], rows["two"]["shared_with"]) == (["two"], ["one"])
    assert rows["one"]["loads"] == rows["two"]["loads"] == 1


def test_models_are_listed_by_the_names_that_a_request_may_use(caller: Caller) -> None:
    control(caller, "photo.text/load")
    listed = caller.send("GET", "/v1/models").json()["data"]
    assert [model["id"] for model in listed] == ["photo", "one", "two"]
    assert listed[0]["parts"] == {"photo.text": "on_device", "photo.image": "unloaded"}
    assert caller.send("GET", "/v1/models/clip.image").json()["id"] == "photo"


def test_an_image_encoder_embeds_texts_with_its_text_part_alone(caller: Caller) -> None:
    answer = caller.embed(["a cat"], model="photo")
    assert answer.status_code == 200, answer.text
    assert states(caller)["photo.image"] == "unloaded"
    assert caller.embed(["a cat"], model="photo.image").status_code == 404


def test_of_several_parts_the_one_that_went_worst_is_told() -> None:
    parts = [
        Outcome("a.text", "done", State.IN_RAM, 100, 1.0),
        Outcome("a.image", "busy", State.ON_DEVICE, 0, 2.0),
    ]
    assert Outcome.of_parts("a", parts) == Outcome("a", Result.BUSY, State.ON_DEVICE, 100, 3.0)
    unknown = [parts[0], Outcome("a.image", "done", State.UNLOADED, None, 0.0)]
    assert Outcome.of_parts("a", unknown).freed_bytes is None

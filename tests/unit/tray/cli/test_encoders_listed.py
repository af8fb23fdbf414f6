"""`pilotlight encoders`: a table of the configured encoders, with or without a running Pilotlight."""

from __future__ import annotations

from typing import Any

from tray_fakes import MIB

from engine import Config, parse
from tray.cli.encoders import entries_in, entries_of, lines

PHOTO = {"kind": "image_text", "model": "org/clip", "aliases": ["clip"]}
TEXT = {"encoder": "photo", "part": "text", "bytes_total": 250 * MIB, "device": "cuda:0"}
MINE = {"kind": "dense", "model": "a/b"}


def component(name: str, kind: str = "dense", **fields: Any) -> dict[str, Any]:
    found = {"name": name, "kind": kind, "model": "org/clip", "aliases": [], "state": "unloaded"}
    found |= {"encoder": name, "part": None}
    return {**found, "status": "idle (not loaded)", "bytes_total": None, "device": None, **fields}


def test_parts_stand_below_their_encoder() -> None:
    running = [
        component("minilm", model="a/b", status="idle", bytes_total=87 * MIB, device="cpu"),
        component("photo.text", "image_text", aliases=["clip.text"], **TEXT),
        component("photo.image", "image_text", aliases=["clip.image"], encoder="photo", part="image"),
    ]
    entries = entries_of(running)
    assert list(lines(entries)) == [
        "NAME           KIND        MODEL     STATE              SIZE     DEVICE",
        "minilm         dense       a/b       idle               87 MiB   cpu",
        "photo          image_text  org/clip",
        "  photo.text                         idle (not loaded)  250 MiB  cuda:0",
        "  photo.image                        idle (not loaded)",
    ]
    assert (entries[1]["aliases"], entries[1]["status"]) == (["clip"], None)


def test_without_a_running_app_the_same_entries_come_from_the_settings_and_nobody_knows_their_state() -> None:
    entries = entries_in(parse({"encoders": {"photo": PHOTO, "my.text": MINE}}))
    assert [(entry["name"], entry["status"], len(entry["parts"])) for entry in entries] == [
        ("photo", None, 2),
        ("my.text", None, 0),
    ]
    assert [line.split() for line in lines(entries)][1:] == [
        ["photo", "image_text", "org/clip"],
        ["photo.text"],
        ["photo.image"],
        ["my.text", "dense", "a/b"],
    ]


def test_no_encoder_at_all_is_said_with_the_way_to_one() -> None:
    assert list(lines(entries_in(Config(encoders=())))) == [
        "No encoder is configured. Add one: pilotlight add NAME KIND MODEL"
    ]

"""Two encoders on one model: one load and one set of bytes, two names."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from running import Running

SETTINGS = """\
[hardware]
device = "cpu"
idle_timeout_seconds = 0

[encoders.notes]
kind = "dense"
model = "builtin:all-MiniLM-L6-v2"

[encoders.search]
kind = "dense"
model = "builtin:all-MiniLM-L6-v2"
aliases = ["find"]
"""


@pytest.fixture
def running(start: Callable[..., Running]) -> Running:
    return start(settings=SETTINGS)


def test_two_encoders_on_one_model_are_one_load_and_one_set_of_bytes(running: Running) -> None:
    first = running.embed(["a small flame"], model="notes").json()
    file_maps, loads = running.maps("model.safetensors"), running.component("notes")["loads"]
    second = running.embed(["a small flame"], model="find").json()
    assert second["data"][0]["embedding"] == first["data"][0]["embedding"]
    assert (running.component("notes")["loads"], running.component("search")["loads"], loads) == (1, 1, 1)
    # No second mapping of the file, and no second skeleton: the same modules serve both.
    assert running.maps("model.safetensors") == file_maps
    notes, search = running.component("notes"), running.component("search")
    assert notes["shared_with"] == ["search"]
    assert search["shared_with"] == ["notes"]
    assert notes["bytes_total"] == search["bytes_total"]

    running.configure(idle_timeout_seconds=1)
    running.wait_for("in_ram", "search")
    assert running.component("notes")["state"] == "in_ram"
    assert running.control("components/find/unload").json()["state"] == "unloaded"
    assert not running.maps("model.safetensors")
    assert running.component("notes")["state"] == "unloaded"

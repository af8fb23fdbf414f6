"""Models that are missing or damaged, and how they come back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from expected import Reference
from running import Home, Running

SETTINGS = """\
[hardware]
device = "cpu"
idle_timeout_seconds = 0

[encoders.gone]
kind = "dense"
model = "{folder}/gone"

[encoders.torn]
kind = "dense"
model = "{folder}/torn"
"""


def test_a_missing_and_a_damaged_model_are_told_apart_and_come_back_when_repaired(
    start: Callable[..., Running], home: Home, reference: Reference
) -> None:
    weights = Path(reference.weights)
    torn = home.folder / "torn"
    shutil.copytree(weights.parent, torn)
    with (torn / weights.name).open("r+b") as file:
        file.truncate(1_000_000)
    running = start(settings=SETTINGS.format(folder=home.folder))

    missing = running.embed("x", model="gone")
    assert missing.status_code == 503
    assert "Retry-After" not in missing.headers
    assert missing.json()["error"]["type"] == "api_error"
    component = running.component("gone")
    assert component["state"] == component["status"] == "unavailable"
    assert str(home.folder / "gone") in component["error"]["message"]
    assert component["error"]["next_step"]
    assert component["error"]["retry_in_seconds"] is None
    assert running.maps("libtorch") == [], "a missing folder is found without torch"

    failed = running.embed("x", model="torn")
    assert failed.status_code == 503
    assert 1 <= int(failed.headers["Retry-After"]) <= 5
    component = running.component("torn")
    assert component["state"] == component["status"] == "failed"
    assert component["loads"] == 0
    assert component["bytes_on_device"] == component["bytes_in_ram"] == 0
    assert component["error"]["title"] == "Load failed"
    assert "torn could not be loaded" in component["error"]["message"]
    assert component["error"]["next_step"]
    assert 0 < component["error"]["retry_in_seconds"] <= 5
    assert running.maps(str(torn)) == []

    waiting = running.embed("x", model="torn")
    assert waiting.status_code == 503
    assert running.printed.count("torn could not be brought up") == 1, "no retry within the delay"

    again = running.control("components/torn/retry")
    assert again.status_code == 503
    assert running.component("torn")["error"]["retry_in_seconds"] > 5, "the delay grows"

    shutil.copyfile(weights, torn / weights.name)
    mended = running.control("components/torn/retry")
    assert mended.status_code == 200
    assert mended.json()["result"] == "done"
    component = running.component("torn")
    assert (component["state"], component["error"], component["loads"]) == ("on_device", None, 1)
    vectors = running.embed(reference.texts, model="torn").json()["data"]
    assert reference.agrees([item["embedding"] for item in vectors])

    shutil.copytree(weights.parent, home.folder / "gone")
    assert running.embed("x", model="gone").status_code == 200, "what was missing is there now"

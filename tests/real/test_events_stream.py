"""Listening to what happens, over a real connection."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from running import Running


def events(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    kind = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield kind, json.loads(line.removeprefix("data: "))


def test_a_listener_hears_of_states_and_readings_and_does_not_hold_up_the_end(start: Callable[..., Running]) -> None:
    running = start()
    with running.http.stream("GET", "/admin/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = events(response)
        kind, reading = next(stream)
        assert kind == "reading"
        assert reading["process"]["rss"] > 0
        assert running.component()["state"] == "unloaded"
        running.embed(["x"])
        changes = []
        while not changes or changes[-1]["new"] != "on_device":
            kind, fields = next(stream)
            if kind == "state":
                changes.append(fields)
        assert [(c["name"], c["old"], c["new"]) for c in changes] == [
            ("minilm", "unloaded", "loading"),
            ("minilm", "loading", "on_device"),
        ]
        # It neither loads nor keeps anything awake.
        assert running.component()["last_used_seconds_ago"] is not None
        began = running.component()["last_used_seconds_ago"]
        while next(stream)[0] != "reading":
            pass
        assert running.component()["last_used_seconds_ago"] >= began
        running.process.terminate()
        assert running.process.wait(5) == 0

"""The real program's menu, read and clicked over D-Bus: what it tells of an encoder agrees with the system."""

from __future__ import annotations

import json
import re
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from desktop_session import Desktop, until
from status_notifier import Panel

SETTINGS = """\
[hardware]
device = "cpu"
idle_timeout_seconds = 600

[encoders.minilm]
kind = "dense"
model = "builtin:all-MiniLM-L6-v2"

[encoders.broken]
kind = "dense"
model = "/nowhere/at/all"
"""
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class Program:
    """Pilotlight on a bare display, its menu and its process."""

    def __init__(self, desktop: Desktop, panel: Panel) -> None:
        self.panel = panel
        self.settings = Path(desktop.env["XDG_CONFIG_HOME"], "pilotlight", "settings.toml")
        self.settings.parent.mkdir()
        self.settings.write_text(SETTINGS)
        self._endpoint = Path(desktop.env["XDG_RUNTIME_DIR"], "pilotlight", "endpoint.json")
        self.process = desktop.start(sys.executable, "-m", "tray.cli", "run", "--port", "0")
        until(panel.find_icon, "the icon to register", 30)
        until(panel.rows, "the menu")
        until(self._endpoint.exists, "the discovery file")

    def summary(self) -> str:
        return str(self.panel.row("minilm")["label"])

    def detail(self, start: str) -> str:
        return str(self.panel.row("minilm", start)["label"])

    def details(self) -> list[str]:
        return [row.get("label", "") for row in self.panel.row("minilm")["children"]]

    def resident(self) -> float:
        """What the submenu says, in bytes."""
        text = next(text for text in self.details() if text.endswith("resident"))
        found = re.fullmatch(r"([\d.]+)(?: (.iB))? of [\d.]+ (.iB) resident", text)
        assert found is not None, text
        return float(found[1]) * UNITS[found[2] or found[3]]

    def mapped(self) -> int:
        """What the system says of the weights' file: bytes of it that are in this process's memory."""
        maps = psutil.Process(self.process.pid).memory_maps(grouped=True)
        return sum(int(one.rss) for one in maps if one.path.endswith("model.safetensors"))

    def rss(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def component(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._url()}/admin/components", timeout=10) as answer:
            found = json.load(answer)["components"]
        return dict(next(one for one in found if one["name"] == "minilm"))

    def embed(self) -> None:
        body = json.dumps({"model": "minilm", "input": "a small flame " * 60}).encode()
        request = urllib.request.Request(f"{self._url()}/v1/embeddings", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            answer.read()

    def _url(self) -> str:
        return str(json.loads(self._endpoint.read_text())["url"])


@pytest.fixture
def program() -> Iterator[Program]:
    with Desktop(panel=False) as desktop:
        panel = Panel(desktop.env["DBUS_SESSION_BUS_ADDRESS"])
        panel.watch()
        try:
            yield Program(desktop, panel)
        finally:
            panel.close()


def told_seconds(text: str) -> float:
    """The figure in `Stepped down in 0.8 ms`."""
    found = re.search(r"in ([\d.]+) (ms|s)\b", text)
    assert found is not None, text
    return float(found[1]) * (0.001 if found[2] == "ms" else 1.0)


def test_the_menu_walks_an_encoder_down_the_ladder_and_its_figures_are_the_systems(program: Program) -> None:
    panel = program.panel
    assert program.summary() == "minilm · idle (not loaded)"

    # A load is asked for and nothing waits for it.
    panel.click("minilm", "Load now")
    until(lambda: "loading" in program.summary(), "the row to say that it loads")
    panel.click("Unload timeout", "4 h")
    until(lambda: hardware(program).get("unload_timeout_seconds") == 14400, "another click while it loads")
    assert "loading" in program.summary()
    until(lambda: "idle ·" in program.summary(), "the load", 60)

    program.embed()
    time.sleep(1.5)  # the menu looks once a second
    held = program.mapped()
    assert held > 10 * 2**20
    assert program.resident() == pytest.approx(held, rel=0.05)
    assert re.fullmatch(r"minilm · idle · \d+ / 87 MiB · steps down in (9 min \d+ s|10 min)", program.summary())
    component = program.component()
    assert told_seconds(program.detail("Loaded")) == pytest.approx(component["load_seconds"], rel=0.05)
    first = told_seconds(program.detail("First use after"))
    assert first == pytest.approx(component["first_encode_seconds"], rel=0.05)

    # Down: RSS falls by what was resident, and the menu says what is left.
    before = program.rss()
    panel.click("minilm", "Step down to RAM")
    until(lambda: "in RAM" in program.summary(), "the step down")
    assert before - program.rss() >= 0.95 * held
    time.sleep(1.5)
    assert program.mapped() < 0.05 * held
    assert program.resident() == pytest.approx(program.mapped(), rel=0.05, abs=65536)  # buffers that no file holds
    assert program.summary().endswith("unloads in 4 h")
    assert told_seconds(program.detail("Stepped down")) == pytest.approx(
        component_seconds(program, "offload"), rel=0.05
    )

    # Up again by use, and all the way down.
    program.embed()
    until(lambda: "idle ·" in program.summary(), "the encoder to be back")
    assert told_seconds(program.detail("Back")) == pytest.approx(component_seconds(program, "reload"), rel=0.05)
    panel.click("minilm", "Step down to RAM")
    until(lambda: "in RAM" in program.summary(), "the second step down")
    panel.click("minilm", "Unload")
    until(lambda: program.summary() == "minilm · idle (not loaded)", "the unload")
    assert program.mapped() == 0
    assert "0 of 87 MiB resident" in program.details()
    assert "No problems" in program.details()


def test_a_pin_is_kept_in_the_file_and_holds_against_a_click(program: Program) -> None:
    panel = program.panel
    panel.click("minilm", "Pinned")
    until(lambda: encoder(program).get("pin") is True, "the pin in the settings file")
    panel.click("minilm", "Load now")
    until(lambda: re.fullmatch(r"minilm · idle · .* · pinned", program.summary()), "the pinned encoder's load", 60)
    assert "Stays: pinned" in program.details()
    panel.click("minilm", "Step down to RAM")
    time.sleep(1.5)
    assert program.summary().startswith("minilm · idle ·")
    panel.click("minilm", "Pinned")
    until(lambda: encoder(program).get("pin") is False, "the pin to go from the settings file")
    until(lambda: "steps down in" in program.summary(), "the countdown")
    panel.click("Unload all now")
    until(lambda: program.summary() == "minilm · idle (not loaded)", "all to be unloaded")


def test_an_encoder_that_cannot_be_loaded_says_so_in_its_submenu(program: Program) -> None:
    panel = program.panel
    panel.click("broken", "Load now")
    until(lambda: "unavailable" in panel.row("broken")["label"], "the row to say so", 60)
    assert panel.row("broken", "Cannot be loaded")
    assert [row for row in panel.row("broken")["children"] if "/nowhere/at/all" in row.get("label", "")]
    assert panel.row("broken", "Load now").get("enabled", True) is True


def hardware(program: Program) -> dict[str, Any]:
    return dict(tomllib.loads(program.settings.read_text())["hardware"])


def encoder(program: Program) -> dict[str, Any]:
    return dict(tomllib.loads(program.settings.read_text())["encoders"]["minilm"])


def component_seconds(program: Program, what: str) -> float:
    return float(program.component()[f"{what}_seconds"])

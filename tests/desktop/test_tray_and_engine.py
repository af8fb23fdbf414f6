"""The real program's menu, read and clicked over D-Bus: its figures agree with those of the system."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from desktop_session import Desktop, until
from program import Program
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
LONG = "a small flame " * 60
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class Watched(Program):
    """Pilotlight on a bare display, with the figures of minilm from its menu and from the system."""

    def summary(self) -> str:
        return str(self.panel.row("minilm")["label"])

    def detail(self, start: str) -> str:
        return str(self.panel.row("minilm", start)["label"])

    def details(self) -> list[str]:
        return [row.get("label", "") for row in self.panel.row("minilm")["children"]]

    def resident(self) -> float:
        """The resident bytes that the submenu shows."""
        text = next(text for text in self.details() if text.endswith("resident"))
        found = re.fullmatch(r"([\d.]+)(?: (.iB))? of [\d.]+ (.iB) resident", text)
        assert found is not None, text
        return float(found[1]) * UNITS[found[2] or found[3]]

    def mapped(self) -> int:
        """The bytes of the weights' file that are in the process's memory, from the system."""
        maps = psutil.Process(self.process.pid).memory_maps(grouped=True)
        return sum(int(one.rss) for one in maps if one.path.endswith("model.safetensors"))

    def rss(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def component(self) -> dict[str, Any]:
        found = self.get("/admin/components")["components"]
        return dict(next(one for one in found if one["name"] == "minilm"))

    def seconds(self, what: str) -> float:
        return float(self.component()[f"{what}_seconds"])


@pytest.fixture(scope="module")
def program() -> Iterator[Watched]:
    """One for all tests, as importing torch again takes longer than they do; the first needs the slow first load."""
    with Desktop(panel=False) as desktop, Panel(desktop.env["DBUS_SESSION_BUS_ADDRESS"]) as panel:
        panel.watch()
        yield Watched(desktop, panel, SETTINGS)


def told_seconds(text: str) -> float:
    """The figure in `Stepped down in 0.8 ms`."""
    found = re.search(r"in ([\d.]+) (ms|s)\b", text)
    assert found is not None, text
    return float(found[1]) * (0.001 if found[2] == "ms" else 1.0)


def test_the_menu_walks_an_encoder_down_the_ladder_and_its_figures_are_the_systems(program: Watched) -> None:
    panel = program.panel
    assert program.summary() == "minilm · idle (not loaded)"

    # A load is requested, and nothing waits for it.
    panel.click("minilm", "Load now")
    until(lambda: "loading" in program.summary(), "the row to say that it loads")
    panel.click("Unload timeout", "4 h")
    until(lambda: program.table("hardware").get("unload_timeout_seconds") == 14400, "another click while it loads")
    assert "loading" in program.summary()
    until(lambda: "idle ·" in program.summary(), "the load", 60)

    program.embed(LONG)
    time.sleep(1.5)  # the menu is refreshed once a second
    held = program.mapped()
    assert held > 10 * 2**20
    assert program.resident() == pytest.approx(held, rel=0.05)
    assert re.fullmatch(r"minilm · idle · \d+ / 87 MiB · steps down in (9 min \d+ s|10 min)", program.summary())
    assert told_seconds(program.detail("Loaded")) == pytest.approx(program.seconds("load"), rel=0.05)
    first = told_seconds(program.detail("First use after"))
    assert first == pytest.approx(program.seconds("first_encode"), rel=0.05)

    # Down: RSS falls by the resident bytes, and the menu shows the rest.
    before = program.rss()
    panel.click("minilm", "Step down to RAM")
    until(lambda: "in RAM" in program.summary(), "the step down")
    assert before - program.rss() >= 0.95 * held
    time.sleep(1.5)
    assert program.mapped() < 0.05 * held
    assert program.resident() == pytest.approx(program.mapped(), rel=0.05, abs=65536)  # buffers that are in no file
    assert program.summary().endswith("unloads in 4 h")
    assert told_seconds(program.detail("Stepped down")) == pytest.approx(program.seconds("offload"), rel=0.05)

    # Up again by use, and all the way down.
    program.embed(LONG)
    until(lambda: "idle ·" in program.summary(), "the encoder to be back")
    assert told_seconds(program.detail("Back")) == pytest.approx(program.seconds("reload"), rel=0.05)
    panel.click("minilm", "Step down to RAM")
    until(lambda: "in RAM" in program.summary(), "the second step down")
    panel.click("minilm", "Unload")
    until(lambda: program.summary() == "minilm · idle (not loaded)", "the unload")
    assert program.mapped() == 0
    assert "0 of 87 MiB resident" in program.details()
    assert "No problems" in program.details()
    assert "a notice could not be shown" not in program.log, "a click that did what it should was told in a balloon"


def test_a_pin_is_kept_in_the_file_and_holds_against_a_click(program: Watched) -> None:
    panel = program.panel
    panel.click("minilm", "Pinned")
    until(lambda: program.table("encoders", "minilm").get("pin") is True, "the pin in the settings file")
    panel.click("minilm", "Load now")
    until(lambda: re.fullmatch(r"minilm · idle · .* · pinned", program.summary()), "the pinned encoder's load", 60)
    assert "Stays: pinned" in program.details()
    panel.click("minilm", "Step down to RAM")
    time.sleep(1.5)
    assert program.summary().startswith("minilm · idle ·")
    panel.click("minilm", "Pinned")
    until(lambda: program.table("encoders", "minilm").get("pin") is False, "the pin to go from the settings file")
    until(lambda: "steps down in" in program.summary(), "the countdown")
    panel.click("Unload all now")
    until(lambda: program.summary() == "minilm · idle (not loaded)", "all to be unloaded")


def test_an_encoder_that_cannot_be_loaded_says_so_in_its_submenu(program: Watched) -> None:
    panel = program.panel
    panel.click("broken", "Load now")
    until(lambda: "unavailable" in panel.row("broken")["label"], "the row to say so", 60)
    assert panel.row("broken", "Cannot be loaded")
    assert [row for row in panel.row("broken")["children"] if "/nowhere/at/all" in row.get("label", "")]
    assert panel.row("broken", "Load now").get("enabled", True) is True

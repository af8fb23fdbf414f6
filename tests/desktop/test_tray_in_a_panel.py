"""The whole program in a real XFCE panel: found by its colour, clicked with the pointer, read over D-Bus."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from desktop_session import Desktop, OpenMenu, artifacts, open_menu, place_of, until
from program import Program
from status_notifier import Panel

from tray.icon.picture import EMBER, PILOT_BLUE

COMMENT = "# My own remark, which has to survive every click."
SETTINGS = f"{COMMENT}\n[hardware]\nlazy_encoders = true  # to be switched\nidle_timeout_seconds = 30\n"


@pytest.fixture
def desktop() -> Iterator[Desktop]:
    with Desktop(panel=True) as desktop:
        yield desktop


def test_the_menu_changes_the_settings_shows_rss_and_quits(desktop: Desktop, panel: Panel) -> None:
    program = Program(desktop, panel, SETTINGS)
    icon = until(lambda: place_of(PILOT_BLUE, desktop.screenshot()), "the banked flame to show in the panel")

    # The menu opens at the pointer and shows every row.
    menu = opened(desktop, panel, icon)
    assert panel.labels()[0] == "Pilotlight · 0 of 1 awake"
    assert rss_in_mib(panel) > 20

    # It stays open, and in place, while an encoder loads and its texts count down each second.
    with ThreadPoolExecutor(1) as app_in_use:
        answer = app_in_use.submit(program.embed)
        until(lambda: panel.labels()[0] == "Pilotlight · loading minilm", "the headline to say that it loads")
        assert answer.result(120) == 384
    until(lambda: panel.labels()[0] == "Pilotlight · 1 of 1 awake", "the headline to say that it is awake")
    until(lambda: re.search(r"· \d+ / 87 MiB · steps down in 2\d s$", panel.row("minilm")["label"]), "the countdown")
    until(lambda: place_of(EMBER, desktop.screenshot()), "the lit flame to show in the panel")
    desktop.screenshot().save(artifacts() / "menu.png")
    assert menu.still_open(desktop), "the menu closed or moved when its texts changed"

    # So does an encoder's submenu, while its own texts count down.
    inside = menu.open_submenu(desktop, panel.labels(), "minilm")
    assert len(inside.rows) == len([row for row in panel.row("minilm")["children"] if "label" in row])
    counted = panel.row("minilm", "Steps down in")["label"]
    until(lambda: panel.row("minilm", "Steps down in")["label"] != counted, "the submenu to count down")
    desktop.screenshot().save(artifacts() / "menu-encoder.png")
    assert menu.still_open(desktop), "the menu closed when its submenu's texts changed"
    assert inside.still_open(desktop), "the submenu closed or moved when its texts changed"
    inside.click(desktop, [row["label"] for row in panel.row("minilm")["children"] if "label" in row], "Step down")
    until(lambda: "· in RAM ·" in panel.row("minilm")["label"], "the encoder to step down")

    # A click on the check reaches the file and what is in force, and the comments stay.
    menu = opened(desktop, panel, icon)
    menu.click(desktop, panel.labels(), "Load on first use")
    until(lambda: program.table("hardware")["lazy_encoders"] is False, "the check in the settings file")
    until(lambda: panel.row("Load on").get("toggle-state") == 0, "the check to go from the menu")

    # So does a choice in the submenu.
    menu = opened(desktop, panel, icon)
    submenu = menu.open_submenu(desktop, panel.labels(), "Idle timeout")
    desktop.screenshot().save(artifacts() / "menu-idle-timeout.png")
    submenu.click(desktop, [row["label"] for row in panel.row("Idle timeout")["children"]], "10 s")
    until(lambda: program.table("hardware")["idle_timeout_seconds"] == 10, "the timeout in the settings file")
    until(lambda: panel.row("Idle timeout", "10 s").get("toggle-state") == 1, "the choice to move in the menu")
    assert program.settings.read_text().startswith(f"{COMMENT}\n[hardware]\n")
    assert "# to be switched" in program.settings.read_text()

    # Quit ends it cleanly.
    menu = opened(desktop, panel, icon)
    menu.click(desktop, panel.labels(), "Quit")
    assert program.process.wait(15) == 0, program.log
    assert "Traceback" not in program.log, program.log
    assert not program.endpoint.exists()
    assert not [left for left in Path(desktop.env["TMPDIR"]).iterdir() if left.name.startswith("pilotlight-")]


def opened(desktop: Desktop, panel: Panel, icon: tuple[int, int]) -> OpenMenu:
    """Open the menu with the pointer; its rows on screen must be those on the bus."""
    menu = open_menu(desktop, icon)
    assert len(menu.rows) == len(panel.labels()), (menu.rows, panel.labels())
    return menu


def rss_in_mib(panel: Panel) -> int:
    found = re.fullmatch(r"RSS (\d+) MiB", panel.row("RSS")["label"])
    assert found is not None
    return int(found[1])

"""The whole program in a real XFCE panel: found by its colour, clicked with the pointer, read over D-Bus."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from desktop_session import Desktop, OpenMenu, artifacts, open_menu, place_of, until
from status_notifier import Panel

from tray.picture import PILOT_BLUE

COMMENT = "# My own remark, which has to survive every click."


@pytest.fixture
def desktop() -> Iterator[Desktop]:
    with Desktop(panel=True) as desktop:
        yield desktop


@pytest.fixture
def panel(desktop: Desktop) -> Iterator[Panel]:
    panel = Panel(desktop.env["DBUS_SESSION_BUS_ADDRESS"])
    yield panel
    panel.close()


def test_the_menu_changes_the_settings_shows_rss_and_quits(desktop: Desktop, panel: Panel) -> None:
    settings = Path(desktop.env["XDG_CONFIG_HOME"], "pilotlight", "settings.toml")
    settings.parent.mkdir()
    settings.write_text(f"{COMMENT}\n[hardware]\nlazy_encoders = true  # to be switched\nidle_timeout_seconds = 30\n")
    endpoint = Path(desktop.env["XDG_RUNTIME_DIR"], "pilotlight", "endpoint.json")
    app = desktop.start(sys.executable, "-m", "tray.cli", "run", "--port", "0")

    until(panel.find_icon, "the icon to register with the panel", 20)
    until(endpoint.exists, "the discovery file")
    icon = until(lambda: place_of(PILOT_BLUE, desktop.screenshot()), "the banked flame to show in the panel")

    # The menu opens at the pointer and shows every row.
    menu = opened(desktop, panel, icon)
    assert panel.labels()[0] == "Pilotlight · 0 of 1 awake"
    assert rss_in_mib(panel) > 20
    menu.picture.save(artifacts() / "menu.png")

    # It stays open, and in place, while its texts change.
    before = panel.rows()
    until(lambda: panel.rows() != before, "a text to change while the menu is open", 60)
    assert menu.still_open(desktop), "the menu closed or moved when a text changed"

    # A click on the check reaches the file and what is in force, and the comments stay.
    menu.click(desktop, panel.labels(), "Load on first use")
    until(lambda: hardware(settings)["lazy_encoders"] is False, "the check in the settings file")
    until(lambda: panel.row("Load on").get("toggle-state") == 0, "the check to go from the menu")

    # So does a choice in the submenu.
    menu = opened(desktop, panel, icon)
    submenu = menu.open_submenu(desktop, panel.labels(), "Idle timeout")
    submenu.picture.save(artifacts() / "menu-idle-timeout.png")
    submenu.click(desktop, [row["label"] for row in panel.row("Idle timeout")["children"]], "10 s")
    until(lambda: hardware(settings)["idle_timeout_seconds"] == 10, "the timeout in the settings file")
    until(lambda: panel.row("Idle timeout", "10 s").get("toggle-state") == 1, "the choice to move in the menu")
    assert settings.read_text().startswith(f"{COMMENT}\n[hardware]\n")
    assert "# to be switched" in settings.read_text()

    # Quit ends it cleanly.
    menu = opened(desktop, panel, icon)
    menu.click(desktop, panel.labels(), "Quit")
    code = until(lambda: None if app.poll() is None else (app.poll(),), "the program to end", 15)[0]
    log = desktop.log(Path(sys.executable).name)
    assert code == 0, log
    assert "Traceback" not in log, log
    assert not endpoint.exists()
    assert not [left for left in Path(desktop.env["TMPDIR"]).iterdir() if left.name.startswith("pilotlight-")]


def opened(desktop: Desktop, panel: Panel, icon: tuple[int, int]) -> OpenMenu:
    """Open the menu with the pointer; its rows on screen must be those on the bus."""
    menu = open_menu(desktop, icon)
    assert len(menu.rows) == len(panel.labels()), (menu.rows, panel.labels())
    return menu


def hardware(settings: Path) -> dict[str, object]:
    return dict(tomllib.loads(settings.read_text())["hardware"])


def rss_in_mib(panel: Panel) -> int:
    found = re.fullmatch(r"RSS (\d+) MiB", panel.row("RSS")["label"])
    assert found is not None
    return int(found[1])

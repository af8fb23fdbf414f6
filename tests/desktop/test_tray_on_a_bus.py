"""The tray on a bare display and a private bus with no notification service: fast, and by D-Bus alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from desktop_session import HERE, ROOT, Desktop, until
from status_notifier import Panel

from tray.menu.menu import ON_A_CPU

NAME = "mini_lm & friends"


def ids(panel: Panel) -> list[int]:
    """Every row's number on the bus, those in submenus too; a row that is made again gets another."""
    rows = panel.rows()
    return [row["id"] for row in rows] + [child["id"] for row in rows for child in row.get("children", [])]


class FakeTray:
    """tests/desktop/fake_tray.py as a process."""

    def __init__(self, desktop: Desktop) -> None:
        path = os.pathsep.join((str(ROOT), str(ROOT / "tests" / "unit" / "tray")))
        self.errors = desktop.home / "fake_tray.err"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "fake_tray.py")],
                env={**desktop.env, "PYTHONPATH": path},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.said: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, name="fake-tray-output", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(json.loads(line))

    def order(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def heard(self, **what: Any) -> bool:
        return what in self.said

    def ended(self, timeout: float = 8.0) -> int:
        code = self.process.wait(timeout)
        self._reader.join(5)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(5)
        self._reader.join(5)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def tray(desktop: Desktop, panel: Panel) -> Iterator[FakeTray]:
    panel.watch()
    tray = FakeTray(desktop)
    try:
        until(lambda: tray.heard(ready=True), "the tray to be ready on its main thread")
        until(panel.find_icon, "the icon to register")
        until(panel.rows, "the menu")
        yield tray
    finally:
        tray.close()


def test_the_menu_arrives_as_built_with_its_checks_and_radios(panel: Panel, tray: FakeTray) -> None:
    assert panel.labels() == [
        "Pilotlight · 0 of 1 awake",
        "RSS 412 MiB",
        ON_A_CPU,
        "mini_lm & friends · idle (not loaded)",
        "Load on first use",
        "Read into RAM at start",
        "Idle timeout",
        "Unload timeout",
        "Offload all now",
        "Unload all now",
        "Copy endpoint address",
        "Open settings file",
        "Quit",
    ]
    assert panel.row("RSS").get("enabled") is False
    assert panel.row("Load on").get("toggle-state") == 1
    choices = {row["label"]: row.get("toggle-state") for row in panel.row("Idle timeout")["children"]}
    assert choices == {"Never": 0, "10 s": 0, "30 s": 1, "1 min": 0, "5 min": 0, "30 min": 0}
    assert panel.property("Title") == "Pilotlight · 0 of 1 awake"
    encoder = panel.row("mini_lm")
    assert encoder.get("enabled", True) is True
    assert [
        (row.get("label", "---"), row.get("enabled", True), row.get("toggle-state")) for row in encoder["children"]
    ] == [
        ("dense · builtin:all-MiniLM-L6-v2 · no device yet", False, None),
        ("Nothing resident", False, None),
        ("Loaded: not yet", False, None),
        ("Back: not yet", False, None),
        ("First use after coming up: not yet", False, None),
        ("Stepped down: not yet", False, None),
        ("Loads at its next use", False, None),
        ("No problems", False, None),
        ("---", True, None),
        ("Load now", True, None),
        ("Step down to RAM", False, None),
        ("Unload", False, None),
        ("Pinned", True, 0),
    ]


def test_texts_change_in_place_so_that_an_open_menu_stays(panel: Panel, tray: FakeTray) -> None:
    before = ids(panel)
    icon = panel.property("IconName")
    panel.signals.clear()
    tray.order("awake")
    until(lambda: panel.row("Pilotlight")["label"] == "Pilotlight · 1 of 1 awake", "the new headline")
    first = until(lambda: panel.row("mini_lm")["label"], "the encoder's row")
    assert "steps down in" in first
    until(lambda: panel.row("mini_lm")["label"] != first, "the countdown to count")
    inside = panel.row("mini_lm", "Steps down in")["label"]
    until(lambda: panel.row("mini_lm", "Steps down in")["label"] != inside, "the countdown in the submenu to count")
    assert panel.row("mini_lm", "61 of 87 MiB resident")
    assert panel.row("mini_lm", "Step down to RAM").get("enabled", True) is True
    assert panel.row("mini_lm", "Load now").get("enabled") is False
    assert ids(panel) == before
    assert not [body for name, body in panel.signals if name == "LayoutUpdated"]
    until(lambda: panel.property("IconName") != icon, "the lit icon")
    lit = panel.property("IconName")
    tray.order("asleep")
    until(lambda: panel.property("IconName") == icon, "the banked icon")
    assert Path(icon).is_file()
    assert Path(lit).is_file()


def test_clicks_reach_the_settings_and_the_checks_follow(panel: Panel, tray: FakeTray) -> None:
    panel.click("Load on first use")
    until(lambda: tray.heard(edit="hardware.lazy_encoders", value=False), "the edit")
    until(lambda: panel.row("Load on").get("toggle-state") == 0, "the check to go")
    panel.click("Load on first use")
    until(lambda: tray.heard(edit="hardware.lazy_encoders", value=True), "the edit back")
    until(lambda: panel.row("Load on").get("toggle-state") == 1, "the check to return")
    panel.click("Idle timeout", "10 s")
    until(lambda: tray.heard(edit="hardware.idle_timeout_seconds", value=10), "the timeout")
    until(lambda: panel.row("Idle timeout", "10 s").get("toggle-state") == 1, "the radio to move")
    assert panel.row("Idle timeout", "30 s").get("toggle-state") == 0
    panel.click("Unload timeout", "1 h")
    until(lambda: tray.heard(edit="hardware.unload_timeout_seconds", value=3600), "the other timeout")
    until(lambda: panel.row("Unload timeout", "1 h").get("toggle-state") == 1, "its radio to move")
    panel.click("Read into RAM at start")
    until(lambda: tray.heard(edit="hardware.eager_load", value=True), "the other check")
    assert len([said for said in tray.said if "edit" in said]) == 5


def test_clicks_in_an_encoders_submenu_reach_that_encoder(panel: Panel, tray: FakeTray) -> None:
    panel.click("mini_lm", "Load now")
    until(lambda: tray.heard(asked="load", name=NAME), "the load")
    tray.order("awake")  # the requested load has not ended, and delays nothing
    until(lambda: panel.row("mini_lm", "Step down").get("enabled", True), "the encoder to be awake")
    panel.click("mini_lm", "Step down to RAM")
    until(lambda: tray.heard(asked="offload", name=NAME), "the step down")
    panel.click("mini_lm", "Unload")
    until(lambda: tray.heard(asked="unload", name=NAME), "the unload")
    panel.click("mini_lm", "Pinned")
    until(lambda: tray.heard(edit=f"encoders.{NAME}.pin", value=True), "the pin in the settings")
    until(lambda: panel.row("mini_lm", "Pinned").get("toggle-state") == 1, "the check")
    panel.click("mini_lm", "Pinned")
    until(lambda: tray.heard(edit=f"encoders.{NAME}.pin", value=False), "the pin to go from the settings")
    until(lambda: panel.row("mini_lm", "Pinned").get("toggle-state") == 0, "the check to go")
    panel.click("Unload all now")
    until(lambda: tray.heard(asked="unload_all"), "the click on all")
    assert [said["asked"] for said in tray.said if "asked" in said] == [
        *("load", "offload", "unload", "pin", "unpin", "unload_all")
    ]


def test_another_encoder_adds_a_row(panel: Panel, tray: FakeTray) -> None:
    tray.order("two")
    until(lambda: "second · idle (not loaded)" in panel.labels(), "the second row")
    panel.click("Load on first use")
    until(lambda: tray.heard(edit="hardware.lazy_encoders", value=False), "a click on the new menu")


def test_a_failure_with_no_notification_service_hangs_nothing(panel: Panel, tray: FakeTray) -> None:
    tray.order("failed")
    until(lambda: "could not be shown" in tray.errors.read_text(), "the log to say that no notice was shown")
    until(lambda: "No <luck> & no joy." in panel.row("mini_lm")["label"], "the row to say why")
    panel.click_quit()
    assert tray.ended() == 0
    assert "Traceback" not in tray.errors.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_tray_through_the_handler_that_the_app_installed(
    desktop: Desktop, tray: FakeTray, number: signal.Signals
) -> None:
    tray.process.send_signal(number)
    assert tray.ended() == 0
    assert tray.heard(signal=number)
    assert tray.heard(ended=[])
    assert not list((desktop.home / "tmp").iterdir()), "temporary pictures were left behind"


def test_stop_from_another_thread_ends_it(tray: FakeTray) -> None:
    tray.order("stop")
    assert tray.ended() == 0
    assert tray.heard(ended=[])


def test_a_panel_that_starts_later_still_gets_the_icon(desktop: Desktop, panel: Panel) -> None:
    tray = FakeTray(desktop)
    try:
        until(lambda: tray.heard(ready=True), "the tray to be ready")
        assert "No panel shows tray icons here yet" in tray.errors.read_text()
        panel.watch()
        until(panel.find_icon, "the icon to register late")
        assert until(panel.labels, "its menu")[0] == "Pilotlight · 0 of 1 awake"
    finally:
        tray.close()

"""What a click does, and what a person hears when it goes wrong."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tray_fakes import FakeDesktop, FakeEngine, FakeOutcome, FakeSettings

from engine.errors import PilotlightError, SettingsError
from tray.commands import Commands
from tray.menu import CopyEndpoint, OffloadAll, OpenSettings, Quit, SetIdleTimeout, SetLazy
from tray.notices import Notice


class Desk:
    """Commands over fakes; `click` returns when the worker is done with it."""

    def __init__(self) -> None:
        self.engine, self.settings, self.desktop = FakeEngine(), FakeSettings(), FakeDesktop()
        self.notices: list[Notice] = []
        self.quits = 0
        self.threads: set[str] = set()
        self._done = threading.Semaphore(0)
        self.commands = Commands(
            self.engine,
            self.settings,
            self.desktop,
            notify=self.notices.append,
            on_done=self._on_done,
            on_quit=self._on_quit,
        )

    def click(self, command: object) -> None:
        self.commands.put(command)  # type: ignore[arg-type]
        assert self._done.acquire(timeout=5)

    def _on_done(self) -> None:
        self.threads.add(threading.current_thread().name)
        self._done.release()

    def _on_quit(self) -> None:
        self.quits += 1


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    desk.commands.start()
    yield desk
    desk.commands.close()


def test_clicks_run_on_their_own_thread(desk: Desk) -> None:
    desk.click(OffloadAll())
    assert desk.threads == {"tray-commands"}
    assert desk.engine.offloads == 1


def test_settings_go_through_the_file(desk: Desk) -> None:
    desk.click(SetLazy(False))
    desk.click(SetIdleTimeout(10.0))
    desk.click(SetIdleTimeout(2.5))
    assert desk.settings.edits == [
        {("hardware", "lazy_encoders"): False},
        {("hardware", "idle_timeout_seconds"): 10},
        {("hardware", "idle_timeout_seconds"): 2.5},
    ]


def test_whole_seconds_are_written_without_a_decimal_point(desk: Desk) -> None:
    desk.click(SetIdleTimeout(60.0))
    assert repr(desk.settings.edits[0][("hardware", "idle_timeout_seconds")]) == "60"


def test_the_address_is_copied_and_the_file_opened(desk: Desk) -> None:
    desk.click(CopyEndpoint("http://127.0.0.1:7458"))
    desk.click(OpenSettings())
    assert desk.desktop.copied == ["http://127.0.0.1:7458"]
    assert desk.desktop.opened == [Path("/nowhere/settings.toml")]


def test_an_encoder_in_use_is_named_when_it_stays(desk: Desk) -> None:
    desk.engine.outcomes = (FakeOutcome("minilm", "busy"), FakeOutcome("other"))
    desk.click(OffloadAll())
    assert desk.notices == [Notice("Still in use", "minilm: in use, so left where it is.")]


def test_a_refused_edit_becomes_a_notice_and_the_worker_goes_on(desk: Desk) -> None:
    desk.settings.error = SettingsError("The file has an error in line 3.")
    desk.click(SetLazy(False))
    assert desk.notices == [Notice("Settings not accepted", "The file has an error in line 3.")]
    desk.click(OffloadAll())
    assert desk.engine.offloads == 1


def test_a_desktop_that_fails_becomes_a_notice_with_the_next_step(desk: Desk) -> None:
    desk.desktop.error = PilotlightError("No text editor.", title="Not opened", next_step="The file is /a.toml")
    desk.click(OpenSettings())
    assert desk.notices == [Notice("Not opened", "No text editor. The file is /a.toml")]


def test_an_error_of_our_own_is_logged_with_its_traceback_and_told(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.settings.error = ZeroDivisionError("ours")
    with caplog.at_level(logging.ERROR):
        desk.click(SetLazy(True))
    assert "ZeroDivisionError: ours" in caplog.text
    assert [notice.title for notice in desk.notices] == ["That did not work"]


def test_quit_overtakes_a_command_that_hangs() -> None:
    desk = Desk()
    at_work, release = threading.Event(), threading.Event()

    def hang() -> tuple[FakeOutcome, ...]:
        at_work.set()
        release.wait(10)
        return ()

    desk.engine.offload_all = hang  # type: ignore[method-assign]
    desk.commands.start()
    desk.commands.put(OffloadAll())
    assert at_work.wait(5)
    desk.commands.put(Quit())
    assert desk.quits == 1
    release.set()
    desk.commands.close()


def test_close_leaves_a_hanging_command_behind_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    at_work, release = threading.Event(), threading.Event()

    def hang() -> tuple[FakeOutcome, ...]:
        at_work.set()
        release.wait(10)
        return ()

    desk.engine.offload_all = hang  # type: ignore[method-assign]
    desk.commands.start()
    desk.commands.put(OffloadAll())
    assert at_work.wait(5)
    desk.commands.put(SetLazy(False))
    desk.commands.close(timeout=0.05)
    assert "left behind" in caplog.text
    release.set()
    desk.commands.close()
    assert desk.settings.edits == []


def test_close_before_start_returns() -> None:
    Desk().commands.close()

"""The effect of each click, and the notice when it fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from tray_fakes import FakeDesktop, FakeEngine, FakeSettings, an_outcome

from engine import (
    Closed,
    Config,
    EncoderConfig,
    LoadFailed,
    Outcome,
    PilotlightError,
    QueueFull,
    SettingsError,
    State,
    Unavailable,
)
from tray.commands import Commands
from tray.menu.item import (
    CopyEndpoint,
    LoadEncoder,
    OffloadAll,
    OffloadEncoder,
    OpenSettings,
    PinEncoder,
    Quit,
    SetEagerLoad,
    SetIdleTimeout,
    SetLazy,
    SetMaxVram,
    SetUnloadTimeout,
    UnloadAll,
    UnloadEncoder,
)
from tray.notices import Notice


class Desk:
    """Commands over fakes; `click` returns when the worker has run it."""

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
    assert desk.engine.calls == [("offload_all",)]


def test_settings_go_through_the_file(desk: Desk) -> None:
    desk.click(SetLazy(False))
    desk.click(SetIdleTimeout(10.0))
    desk.click(SetIdleTimeout(2.5))
    desk.click(SetUnloadTimeout(3600.0))
    desk.click(SetEagerLoad(True))
    desk.click(SetMaxVram("-1"))
    assert desk.settings.edits == [
        {("hardware", "lazy_encoders"): False},
        {("hardware", "idle_timeout_seconds"): 10},
        {("hardware", "idle_timeout_seconds"): 2.5},
        {("hardware", "unload_timeout_seconds"): 3600},
        {("hardware", "eager_load"): True},
        {("hardware", "max_vram"): "-1"},
    ]


def test_whole_seconds_are_written_without_a_decimal_point(desk: Desk) -> None:
    desk.click(SetIdleTimeout(60.0))
    desk.click(SetUnloadTimeout(0.0))
    assert repr(desk.settings.edits[0][("hardware", "idle_timeout_seconds")]) == "60"
    assert repr(desk.settings.edits[1][("hardware", "unload_timeout_seconds")]) == "0"


def test_the_address_is_copied_and_the_file_opened(desk: Desk) -> None:
    desk.click(CopyEndpoint("http://127.0.0.1:7458"))
    desk.click(OpenSettings())
    assert desk.desktop.copied == ["http://127.0.0.1:7458"]
    assert desk.desktop.opened == [Path("/nowhere/settings.toml")]


@pytest.mark.parametrize(
    ("command", "call"),
    [
        (OffloadEncoder("minilm"), ("offload", "minilm")),
        (UnloadEncoder("minilm"), ("unload", "minilm")),
        (OffloadAll(), ("offload_all",)),
        (UnloadAll(), ("unload_all",)),
    ],
)
def test_a_step_down_reaches_the_engine_and_is_told_only_when_it_did_not_happen(
    desk: Desk, command: object, call: tuple[str, ...]
) -> None:
    desk.engine.outcomes = (an_outcome(),)
    desk.click(command)
    assert desk.engine.calls == [call]
    assert desk.notices == []
    desk.engine.outcomes = (an_outcome("minilm", "refused", "It is pinned."),)
    desk.click(command)
    assert desk.notices == [Notice("Left in place", "minilm: It is pinned.")]


def test_all_who_stay_are_named_with_their_reasons(desk: Desk) -> None:
    desk.engine.outcomes = (an_outcome("a", "busy"), an_outcome("b"), an_outcome("c", "refused"))
    desk.click(OffloadAll())
    assert desk.notices == [Notice("Left in place", "a: in use or on its way.\nc: pinned.")]


@pytest.mark.parametrize(
    ("command", "told"),
    [(OffloadEncoder("minilm"), True), (OffloadAll(), True), (UnloadEncoder("minilm"), False), (UnloadAll(), False)],
)
def test_an_encoder_that_cannot_rest_in_ram_is_told_to_whoever_asked_for_that(
    desk: Desk, command: object, told: bool
) -> None:
    desk.engine.outcomes = (an_outcome(reason="It writes into its weights.", state=State.UNLOADED),)
    desk.click(command)
    assert desk.notices == [Notice("Unloaded instead", "minilm: It writes into its weights.")] * told


@pytest.mark.parametrize(("pinned", "verb"), [(True, "pin"), (False, "unpin")])
def test_a_pin_is_kept_in_the_settings_and_overrules_one_that_an_app_set(desk: Desk, pinned: bool, verb: str) -> None:
    desk.click(PinEncoder("minilm", pinned))
    assert desk.settings.edits == [{("encoders", "minilm", "pin"): pinned}]
    assert desk.engine.calls == [(verb, "minilm")]


def test_a_pin_of_one_part_is_written_into_that_parts_table(desk: Desk) -> None:
    photo = EncoderConfig(name="my.photo", kind="image_text", model="org/clip")
    desk.engine.config = Config(encoders=(*desk.engine.config.encoders, photo))
    desk.click(PinEncoder("my.photo.text", True))
    assert desk.settings.edits == [{("encoders", "my.photo", "text", "pin"): True}]
    assert desk.engine.calls == [("pin", "my.photo.text")]


def test_an_encoder_that_stays_pinned_because_another_shares_its_weights_is_told(desk: Desk) -> None:
    desk.engine.outcomes = (an_outcome(reason="other shares its weights and is pinned."),)
    desk.click(PinEncoder("minilm", False))
    assert desk.notices == [Notice("minilm stays pinned", "other shares its weights and is pinned.")]


def test_a_pin_of_an_encoder_that_the_settings_hold_no_more_is_told(desk: Desk) -> None:
    desk.click(PinEncoder("gone", True))
    assert [notice.message for notice in desk.notices] == ["There is no encoder 'gone'. Configured are: minilm."]
    assert desk.settings.edits == []


def test_a_pin_that_the_file_refuses_is_not_put_in_force(desk: Desk) -> None:
    desk.settings.error = SettingsError("The file has an error in line 3.")
    desk.click(PinEncoder("minilm", True))
    assert [notice.title for notice in desk.notices] == ["Settings not accepted"]
    assert desk.engine.calls == []


def test_a_load_holds_up_no_other_click_and_waits_for_no_delay(desk: Desk) -> None:
    desk.click(LoadEncoder("minilm"))
    desk.click(OffloadAll())
    assert desk.engine.calls == [("load", "minilm", "retry"), ("offload_all",)]
    desk.engine.loads[0].set_result(an_outcome())
    assert desk.notices == []


@pytest.mark.parametrize("error", [LoadFailed("Cut short."), Unavailable("No torch."), Closed("Closing.")])
def test_a_load_that_fails_is_left_to_the_event_that_tells_it(desk: Desk, error: PilotlightError) -> None:
    desk.click(LoadEncoder("minilm"))
    desk.engine.loads[0].set_exception(error)
    assert desk.notices == []


def test_what_else_a_load_meets_is_told(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.click(LoadEncoder("minilm"))
    desk.engine.loads[0].set_exception(ZeroDivisionError("ours"))
    assert [notice.title for notice in desk.notices] == ["That did not work"]
    assert "ZeroDivisionError: ours" in caplog.text


def test_a_load_that_is_not_taken_is_told(desk: Desk) -> None:
    def full(name: str, *, retry: bool = False) -> Future[Outcome]:
        raise QueueFull("64 requests wait for minilm.")

    desk.engine.submit_load = full  # type: ignore[method-assign]
    desk.click(LoadEncoder("minilm"))
    assert [notice.title for notice in desk.notices] == ["Too many requests"]


def test_a_load_that_ends_after_the_tray_says_nothing(desk: Desk) -> None:
    desk.click(LoadEncoder("one"))
    desk.click(LoadEncoder("other"))
    desk.commands.close()
    desk.engine.loads[0].cancel()
    desk.engine.loads[1].set_exception(ZeroDivisionError())
    assert desk.notices == []


def test_a_refused_edit_becomes_a_notice_and_the_worker_goes_on(desk: Desk) -> None:
    desk.settings.error = SettingsError("The file has an error in line 3.")
    desk.click(SetLazy(False))
    assert desk.notices == [Notice("Settings not accepted", "The file has an error in line 3.")]
    desk.click(OffloadAll())
    assert desk.engine.calls == [("offload_all",)]


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

    def hang() -> tuple[Outcome, ...]:
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

    def hang() -> tuple[Outcome, ...]:
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

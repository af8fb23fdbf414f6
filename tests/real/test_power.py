"""The machine's sleep as logind tells it, on a bus of the test's own."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from running import Home, Running, wait_until
from system_bus import MISSING, SystemBus

from engine import power
from engine.power import Watch

if sys.platform != "linux":
    pytest.skip("logind is Linux's", allow_module_level=True)

from fake_logind import FakeLogind, Stranger

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

SECONDS = 15
LOCK = ("sleep", "Pilotlight", "Weights leave the GPU", "delay")


class Stage:
    """A system bus, those on it, and what the watch called: `sleep 1` while one inhibitor was held."""

    def __init__(self, ends: ExitStack) -> None:
        self._ends = ends
        self.bus = SystemBus()
        ends.callback(self.bus.close)
        self.calls: list[str] = []
        self.logind: FakeLogind | None = None

    def join(self, *, refuses: bool = False) -> FakeLogind:
        """Start a logind on the bus."""
        logind = self.logind = FakeLogind(self.bus.address, refuses=refuses)
        self._ends.callback(logind.close)
        return logind

    def stranger(self) -> Stranger:
        """Start a program that is not logind."""
        stranger = Stranger(self.bus.address)
        self._ends.callback(stranger.close)
        return stranger

    def watch(self) -> Watch:
        """Watch the bus, and note what is called."""
        return self.watch_with(self.sleep, self.wake)

    def watch_with(self, on_sleep: Callable[[], None], on_wake: Callable[[], None]) -> Watch:
        """Watch the bus with callbacks of the test's own."""
        watch = power.watch(on_sleep, on_wake)
        self._ends.callback(watch.close, SECONDS)
        return watch

    def sleep(self) -> None:
        """Note that the machine is about to sleep."""
        self.calls.append(f"sleep {self.held}")

    def wake(self) -> None:
        """Note that the machine woke."""
        self.calls.append(f"wake {self.held}")

    @property
    def held(self) -> int:
        """How many inhibitors the logind has given that are still held."""
        return self.logind.held if self.logind is not None else 0

    def wait_for(self, true: Callable[[], object], what: str) -> None:
        """Wait until something is true of the stage."""
        wait_until(true, SECONDS, f"{what}; called {self.calls}, {self.held} held")


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with ExitStack() as ends:
        stage = Stage(ends)
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", stage.bus.address)
        stage.bus.start()
        yield stage


def power_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "engine-power"]


def test_the_machine_sleeps_once_the_work_before_it_is_done_and_waits_again_after_it_woke(stage: Stage) -> None:
    logind = stage.join()
    stage.watch()
    for turn in (1, 2):
        stage.wait_for(lambda: logind.held == 1, "an inhibitor")
        assert len(logind.inhibitors) == turn
        assert logind.inhibitors[-1].asked == LOCK
        logind.prepare_for_sleep(True)
        stage.wait_for(lambda: logind.held == 0, "the inhibitor given back")
        assert stage.calls == ["sleep 1", "wake 0"] * (turn - 1) + ["sleep 1"]
        assert len(logind.inhibitors) == turn
        logind.prepare_for_sleep(False)
    stage.wait_for(lambda: logind.held == 1, "an inhibitor")
    assert stage.calls == ["sleep 1", "wake 0"] * 2


def test_a_callback_that_raises_delays_nothing_and_ends_nothing(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        stage.sleep()
        raise RuntimeError("no weights today")

    logind = stage.join()
    stage.watch_with(fail, fail)
    for turn in (1, 2):
        stage.wait_for(lambda: logind.held == 1, "an inhibitor")
        logind.prepare_for_sleep(True)
        stage.wait_for(lambda: logind.held == 0, "the inhibitor given back")
        logind.prepare_for_sleep(False)
        stage.wait_for(lambda turn=turn: len(stage.calls) == 2 * turn, "both calls")
    assert stage.calls == ["sleep 1", "sleep 0"] * 2
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["no weights today"] * 4


def test_who_is_not_logind_is_not_believed(stage: Stage) -> None:
    logind = stage.join()
    stage.watch()
    stage.wait_for(lambda: logind.held == 1, "an inhibitor")
    stranger = stage.stranger()
    for start in (True, False):
        stranger.prepare_for_sleep(start)
        stranger.prepare_for_sleep(start, logind.inhibitors[0].program)
    assert logind.held == 1
    logind.prepare_for_sleep(True)
    stage.wait_for(lambda: logind.held == 0, "the inhibitor given back")
    assert stage.calls == ["sleep 1"]


def test_without_an_inhibitor_sleep_is_followed_all_the_same(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "engine.power.linux")
    logind = stage.join(refuses=True)
    stage.watch()
    stage.wait_for(lambda: logind.refused, "a question")
    logind.prepare_for_sleep(True)
    stage.wait_for(lambda: stage.calls == ["sleep 0"], "the call before sleep")
    logind.prepare_for_sleep(False)
    stage.wait_for(lambda: logind.refused == 2, "another question")
    assert stage.calls == ["sleep 0", "wake 0"]
    assert all(record.levelno == logging.INFO for record in caplog.records if "linux" in record.name)


def test_a_logind_that_comes_later_or_anew_is_found_without_looking_for_it(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "engine.power.linux")
    stage.watch()
    stage.wait_for(lambda: [record for record in caplog.records if "no logind" in record.message], "a line about it")
    first = stage.join()
    stage.wait_for(lambda: first.held == 1, "an inhibitor")
    first.close()
    second = stage.join()
    stage.wait_for(lambda: second.held == 1, "an inhibitor of the new one")
    second.prepare_for_sleep(True)
    stage.wait_for(lambda: stage.calls == ["sleep 1"], "the call before sleep")


def test_a_bus_that_goes_and_comes_back_is_joined_again(stage: Stage) -> None:
    logind = stage.join()
    stage.watch()
    stage.wait_for(lambda: logind.held == 1, "an inhibitor")
    stage.bus.stop()
    stage.wait_for(lambda: logind.held == 0, "the inhibitor given back")
    stage.bus.start()
    again = stage.join()
    stage.wait_for(lambda: again.held == 1, "an inhibitor of the new one")
    again.prepare_for_sleep(True)
    stage.wait_for(lambda: again.held == 0, "the inhibitor given back")
    assert stage.calls == ["sleep 1"]


def test_a_wake_that_a_lost_bus_could_not_tell_is_made_up_for(stage: Stage) -> None:
    logind = stage.join()
    stage.watch()
    stage.wait_for(lambda: logind.held == 1, "an inhibitor")
    logind.prepare_for_sleep(True)
    stage.wait_for(lambda: logind.held == 0, "the inhibitor given back")
    stage.bus.stop()
    stage.bus.start()
    stage.wait_for(lambda: stage.calls == ["sleep 1", "wake 0"], "the call after it woke")


def test_closing_gives_the_inhibitor_back_and_ends_the_thread(stage: Stage) -> None:
    logind = stage.join()
    watch = stage.watch()
    stage.wait_for(lambda: logind.held == 1, "an inhibitor")
    assert power_threads() == ["engine-power"]
    assert watch.close(SECONDS)
    assert power_threads() == []
    assert logind.held == 0
    assert stage.calls == []
    assert watch.close(SECONDS)


def test_closing_at_any_time_ends_the_thread(stage: Stage) -> None:
    stage.join()
    for _ in range(50):
        assert stage.watch().close(SECONDS)
    stage.wait_for(lambda: stage.held == 0, "every inhibitor given back")
    assert power_threads() == []


def test_closing_does_not_wait_for_ever_for_the_work_before_sleep(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    at_work, done = threading.Event(), threading.Event()

    def work() -> None:
        at_work.set()
        done.wait(SECONDS)

    logind = stage.join()
    watch = stage.watch_with(work, stage.wake)
    stage.wait_for(lambda: logind.held == 1, "an inhibitor")
    logind.prepare_for_sleep(True)
    assert at_work.wait(SECONDS)
    assert not watch.close(0.05)
    assert "engine-power is still at work" in caplog.text
    assert logind.held == 1
    done.set()
    assert watch.close(SECONDS)
    assert logind.held == 0


@pytest.mark.parametrize("address", ["unix:path=/nowhere/bus", "tcp:host=localhost,port=1", "nonsense"])
def test_without_a_bus_one_line_says_so_and_nothing_waits(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "engine.power.linux")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    began = time.monotonic()
    watch = power.watch(pytest.fail, pytest.fail)
    assert time.monotonic() - began < 0.5
    wait_until(lambda: len(caplog.records) == 2, SECONDS, "a second look for a bus")
    assert time.monotonic() - began >= 1
    closing = time.monotonic()
    assert watch.close(SECONDS)
    assert time.monotonic() - closing < 0.5
    assert [record.levelno for record in caplog.records] == [logging.INFO, logging.DEBUG]
    assert not any(record.exc_info for record in caplog.records)


def test_a_running_pilotlight_delays_sleep_and_repairs_after_it(
    stage: Stage, home: Home, start: Callable[..., Running]
) -> None:
    logind = stage.join()
    home.environment["DBUS_SYSTEM_BUS_ADDRESS"] = stage.bus.address
    running = start()
    stage.wait_for(lambda: logind.held == 1, "an inhibitor")
    assert logind.inhibitors[0].asked == LOCK
    before = running.embed("a lamp").json()["data"]
    logind.prepare_for_sleep(True)
    stage.wait_for(lambda: logind.held == 0, "the inhibitor given back")
    logind.prepare_for_sleep(False)
    stage.wait_for(lambda: logind.held == 1, "an inhibitor")
    assert running.embed("a lamp").json()["data"] == before
    assert running.signal(signal.SIGTERM) == 0
    assert logind.held == 0
    assert len(logind.inhibitors) == 2
    assert "Traceback" not in running.printed

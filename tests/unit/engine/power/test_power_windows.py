"""Windows' notices of suspend and resume, with a powrprof of our own."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.power.watch import Watch
from engine.power.windows import PowerEvents

SUSPEND, RESUME_SUSPEND, RESUME_AUTOMATIC, POWER_STATUS = 4, 7, 18, 10
ROUTINE = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)
HANDLE = 0x1234
SECONDS = 10


class FakePowrprof:
    """Registers one program, unless it answers with an error, and gives it notices on the caller's thread."""

    def __init__(self, error: int = 0) -> None:
        self.error = error
        self.late = False  # a notice is on its way while the program unregisters
        self.registered, self.unregistered = threading.Event(), threading.Event()
        self._routine: Any = None

    def PowerRegisterSuspendResumeNotification(self, flags: int, recipient: Any, handle: Any) -> int:  # noqa: N802
        assert flags == 2
        subscription = recipient._obj
        assert ctypes.sizeof(subscription) == 2 * ctypes.sizeof(ctypes.c_void_p)
        assert subscription.Context is None
        self._routine = ROUTINE(subscription.Callback)
        if not self.error:
            handle._obj.value = HANDLE
            self.registered.set()
        return self.error

    def PowerUnregisterSuspendResumeNotification(self, handle: Any) -> int:  # noqa: N802
        assert handle.value == HANDLE
        self.unregistered.set()
        return self._routine(None, SUSPEND, None) if self.late else 0  # type: ignore[no-any-return]

    def notify(self, kind: int) -> None:
        assert self.registered.wait(SECONDS)
        assert self._routine(None, kind, None) == 0


class Program:
    """Watches the fake, and notes what it called."""

    def __init__(self, fake: FakePowrprof, on_sleep: Callable[[], None] | None = None) -> None:
        self.calls: list[str] = []
        self._on_sleep = on_sleep
        source = PowerEvents(lambda: (fake, ROUTINE), patience=0.05 if on_sleep else SECONDS)
        self.watch = Watch(source, self._sleep, lambda: self.calls.append("wake"))

    def called(self) -> list[str]:
        """What was called until the watch was closed; a notice that came before is still acted on."""
        assert self.watch.close(SECONDS)
        return self.calls

    def _sleep(self) -> None:
        self.calls.append("sleep")
        if self._on_sleep is not None:
            self._on_sleep()


@pytest.fixture
def fake() -> FakePowrprof:
    return FakePowrprof()


@pytest.fixture
def program(fake: FakePowrprof) -> Iterator[Program]:
    program = Program(fake)
    yield program
    program.watch.close(SECONDS)


def test_windows_goes_on_once_the_work_before_sleep_is_done(fake: FakePowrprof, program: Program) -> None:
    fake.notify(SUSPEND)
    assert program.calls == ["sleep"]


def test_windows_waits_no_longer_than_its_patience(fake: FakePowrprof) -> None:
    done = threading.Event()
    program = Program(fake, on_sleep=lambda: done.wait(SECONDS) and None)
    fake.notify(SUSPEND)
    assert not done.is_set()
    fake.notify(RESUME_AUTOMATIC)
    done.set()
    assert program.called() == ["sleep", "wake"]


@pytest.mark.parametrize(
    "kinds", [(RESUME_AUTOMATIC,), (RESUME_AUTOMATIC, RESUME_SUSPEND), (RESUME_SUSPEND, RESUME_AUTOMATIC)]
)
def test_a_resume_wakes_once_however_often_it_is_told(
    fake: FakePowrprof, program: Program, kinds: tuple[int, ...]
) -> None:
    for kind in (SUSPEND, *kinds, SUSPEND, *kinds):
        fake.notify(kind)
    assert program.called() == ["sleep", "wake"] * 2


def test_a_resume_from_a_sleep_that_nobody_told_wakes_too(fake: FakePowrprof, program: Program) -> None:
    for kind in (RESUME_AUTOMATIC, RESUME_SUSPEND, RESUME_AUTOMATIC):
        fake.notify(kind)
    assert program.called() == ["wake"] * 2


def test_a_change_of_the_battery_is_no_sleep(fake: FakePowrprof, program: Program) -> None:
    fake.notify(POWER_STATUS)
    assert program.called() == []


def test_work_that_raises_holds_nothing_up(fake: FakePowrprof, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("no weights today")

    program = Program(fake, on_sleep=fail)
    for kind in (SUSPEND, RESUME_AUTOMATIC, SUSPEND):
        fake.notify(kind)
    assert program.called() == ["sleep", "wake", "sleep"]
    assert caplog.text.count("RuntimeError: no weights today") == 2


def test_closing_unregisters_and_what_comes_late_is_answered_at_once(fake: FakePowrprof, program: Program) -> None:
    assert fake.registered.wait(SECONDS)
    fake.late = True
    assert program.watch.close(SECONDS / 2)
    assert fake.unregistered.is_set()
    assert program.calls == []
    assert "engine-power" not in {thread.name for thread in threading.enumerate()}


def test_a_refusal_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "engine.power")
    assert Program(FakePowrprof(error=5)).called() == []
    assert [record.message for record in caplog.records] == ["Windows does not tell of the machine's sleep: error 5"]


def test_a_windows_without_the_function_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "engine.power")
    watch = Watch(PowerEvents(lambda: (object(), ROUTINE)), pytest.fail, pytest.fail)
    assert watch.close(SECONDS)
    assert [record.levelno for record in caplog.records] == [logging.INFO]

"""The thread that steps idle encoders down: what one tick does, and that it sleeps, wakes and ends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest
from engine_fakes import LIMIT, FakeClock, Gate
from test_state import view

from engine.residency.offloader import Offloader
from engine.residency.policy import Decision, Shortage, Step
from engine.state import SlotView, State


class FakeSlots:
    """Shows the views it is given and counts who looks."""

    def __init__(self, *views: SlotView) -> None:
        self.shown = views
        self.decisions: list[Decision] = []
        self.looked = threading.Semaphore(0)
        self.applied = threading.Event()
        self.on_apply: Callable[[], None] = lambda: None

    def slots(self) -> tuple[SlotView, ...]:
        self.looked.release()
        return self.shown

    def apply_decision(self, decision: Decision) -> None:
        self.decisions.append(decision)
        self.on_apply()
        self.applied.set()


class FakeDevices:
    """Says what is short as scripted, and keeps what was done about it."""

    def __init__(self, *short: Shortage, watching: bool = False) -> None:
        self.watching = watching
        self.short = short
        self.relieved: list[Shortage] = []

    def shortages(self) -> tuple[Shortage, ...]:
        return self.short

    def relieve(self, shortage: Shortage) -> None:
        self.relieved.append(shortage)


def test_a_tick_applies_what_is_due_and_says_how_long_nothing_else_is() -> None:
    slots = FakeSlots(view(State.ON_DEVICE, name="due", last_used=960.0), view(State.ON_DEVICE, last_used=990.0))
    slots.on_apply = lambda: setattr(slots, "shown", slots.shown[1:])
    assert Offloader(slots, FakeDevices(), FakeClock()).tick() == 20.0
    assert slots.decisions == [Decision("due", Step.OFFLOAD, 960.0, "idle for 30 s")]


def test_a_tick_relieves_what_is_short_and_looks_again_a_second_later() -> None:
    shortage = Shortage("cuda:0", 5, "another program needs VRAM")
    devices = FakeDevices(shortage, watching=True)
    awake = view(State.ON_DEVICE, last_used=990.0)
    assert Offloader(FakeSlots(awake), devices, FakeClock()).tick() == 1.0
    assert devices.relieved == [shortage]


def test_a_tick_looks_at_no_device_while_nothing_can_become_short_there() -> None:
    devices = FakeDevices(Shortage("cuda:0", 5, "another program needs VRAM"))
    assert Offloader(FakeSlots(), devices, FakeClock()).tick() is None
    assert devices.relieved == []


def test_a_tick_unloads_what_a_request_wanted_unloaded_at_its_end() -> None:
    slots = FakeSlots(view(State.ON_DEVICE, last_used=1000.0, keep_alive_seconds=0.0))
    slots.on_apply = lambda: setattr(slots, "shown", ())
    assert Offloader(slots, FakeDevices(), FakeClock()).tick() is None
    assert slots.decisions == [Decision("minilm", Step.UNLOAD, 1000.0, "a request asked for it (keep_alive 0)")]


def test_a_tick_sleeps_as_long_as_a_request_wants_an_encoder_kept() -> None:
    slots = FakeSlots(
        view(State.ON_DEVICE, name="kept", last_used=900.0, keep_alive_seconds=300.0),
        view(State.ON_DEVICE, name="stays", last_used=900.0, keep_alive_seconds=-1.0),
    )
    assert Offloader(slots, FakeDevices(), FakeClock()).tick() == 200.0
    assert slots.decisions == []


def test_a_tick_with_nothing_that_can_expire_sleeps_until_woken() -> None:
    slots = FakeSlots(view(State.UNLOADED), view(State.ON_DEVICE, last_used=1.0, pinned=True))
    assert Offloader(slots, FakeDevices(), FakeClock()).tick() is None
    assert slots.decisions == []


def test_what_is_due_but_busy_is_not_asked_in_a_tight_loop() -> None:
    slots = FakeSlots(view(State.ON_DEVICE, last_used=1.0))
    assert Offloader(slots, FakeDevices(), FakeClock()).tick() == pytest.approx(0.05)


def test_the_thread_starts_on_demand_and_once_and_stops() -> None:
    before = set(threading.enumerate())
    offloader = Offloader(FakeSlots(), FakeDevices(), FakeClock())
    assert set(threading.enumerate()) == before
    offloader.start()
    offloader.start()
    assert [thread.name for thread in set(threading.enumerate()) - before] == ["engine-offloader"]
    offloader.stop(LIMIT)
    assert set(threading.enumerate()) == before


def test_stopping_without_a_start_does_nothing() -> None:
    Offloader(FakeSlots(), FakeDevices(), FakeClock()).stop(LIMIT)


def test_waking_makes_it_look_again() -> None:
    slots = FakeSlots()
    offloader = Offloader(slots, FakeDevices(), FakeClock())
    offloader.start()
    for _ in range(2):
        assert slots.looked.acquire(timeout=LIMIT)
    slots.shown = (view(State.ON_DEVICE, last_used=960.0),)
    slots.on_apply = lambda: setattr(slots, "shown", ())
    offloader.wake()
    assert slots.applied.wait(LIMIT)
    offloader.stop(LIMIT)


def test_a_tick_that_fails_is_logged_and_the_thread_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    slots = FakeSlots(view(State.ON_DEVICE, last_used=1.0))
    failed = threading.Event()

    def fail_once() -> None:
        if not failed.is_set():
            failed.set()
            raise ZeroDivisionError("ours")
        slots.shown = ()

    slots.on_apply = fail_once
    offloader = Offloader(slots, FakeDevices(), FakeClock())
    with caplog.at_level(logging.ERROR):
        offloader.start()
        assert failed.wait(LIMIT)
        offloader.wake()
        assert slots.applied.wait(LIMIT)
        offloader.stop(LIMIT)
    assert "ZeroDivisionError: ours" in caplog.text


def test_a_stop_that_runs_out_of_time_names_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    slots, gate = FakeSlots(view(State.ON_DEVICE, last_used=1.0)), Gate()
    slots.on_apply = gate.passed
    offloader = Offloader(slots, FakeDevices(), FakeClock())
    offloader.start()
    gate.reached()
    with caplog.at_level(logging.WARNING):
        offloader.stop(0.0)
    assert "engine-offloader is still at work" in caplog.text
    gate.open()
    offloader.stop(LIMIT)

"""The thread of the tray: the events that refresh it, and the notices that are shown once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

import pytest
from tray_fakes import MIB, FakeEngine, FakeSettings, a_view, an_outcome

from engine import Downloading, LoadFailed, SettingsApplied, State, StateChanged
from engine.events import TimerSet
from engine.state import Download
from tray import tray as module
from tray.icon.picture import Flame
from tray.menu.item import Command, Item, OffloadAll
from tray.notices import Notice
from tray.tray import Tray

FAILURE = StateChanged("minilm", State.LOADING, State.FAILED, error=LoadFailed("Cut short."))


class FakeRenderer:
    """A renderer that shows everything at once; the one in use is `latest`."""

    latest: FakeRenderer

    def __init__(self, backend: str, on_click: Callable[[Command], None], *first: object) -> None:
        self.click = on_click
        self.shown: queue.SimpleQueue[tuple[Item, ...]] = queue.SimpleQueue()
        self.told: queue.SimpleQueue[Notice] = queue.SimpleQueue()
        self._ended = threading.Event()
        FakeRenderer.latest = self

    def run(self, on_ready: Callable[[], None]) -> None:
        on_ready()
        self._ended.wait(10)

    def stop(self) -> None:
        self._ended.set()

    def show(self, rows: tuple[Item, ...], flame: Flame, tooltip: str) -> None:
        self.shown.put(rows)

    def notify(self, notice: Notice) -> None:
        self.told.put(notice)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def renderer(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRenderer]:
    """The renderer of a tray that refreshes itself only every 5 s, so that a test sees the effect of an event."""
    monkeypatch.setattr(module, "Renderer", FakeRenderer)
    monkeypatch.setattr(module, "REFRESH_SECONDS", 5.0)
    monkeypatch.setattr(module.platform, "prepare", lambda: None)
    monkeypatch.setattr(module.platform, "host_missing", lambda: None)
    tray = Tray(engine, FakeSettings(), "http://127.0.0.1:7458", on_quit=lambda: None)
    ready = threading.Event()
    thread = threading.Thread(target=tray.run, args=(ready.set,), name="main")
    thread.start()
    assert ready.wait(5)
    yield FakeRenderer.latest
    tray.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_the_menu_shows_measured_bytes(engine: FakeEngine, renderer: FakeRenderer) -> None:
    before = engine.measured
    engine.events.publish(SettingsApplied())
    renderer.shown.get(timeout=2)
    assert engine.measured == before + 1


def test_a_timer_that_every_request_sets_measures_nothing(engine: FakeEngine, renderer: FakeRenderer) -> None:
    before = engine.measured
    engine.events.publish(TimerSet("minilm"))
    with pytest.raises(queue.Empty):
        renderer.shown.get(timeout=0.3)
    assert engine.measured == before


def test_a_step_of_a_download_is_shown_and_is_no_news_for_a_balloon(engine: FakeEngine, renderer: FakeRenderer) -> None:
    progress = Download(120 * MIB, 470 * MIB)
    engine.encoders = (a_view("bge", State.LOADING, download=progress),)
    engine.events.publish(Downloading("bge", progress))
    assert "bge · downloading 120 of 470 MiB" in [row.text for row in renderer.shown.get(timeout=2)]
    assert renderer.told.empty()


def test_a_failure_that_repeats_itself_is_told_once_unless_somebody_clicked(
    engine: FakeEngine, renderer: FakeRenderer
) -> None:
    notice = Notice("minilm: Load failed", "Cut short.")
    engine.events.publish(FAILURE)
    assert renderer.told.get(timeout=2) == notice
    engine.events.publish(FAILURE)
    renderer.shown.get(timeout=2)
    assert renderer.told.empty()
    engine.outcomes = (an_outcome(),)
    renderer.click(OffloadAll())
    engine.events.publish(FAILURE)
    assert renderer.told.get(timeout=2) == notice

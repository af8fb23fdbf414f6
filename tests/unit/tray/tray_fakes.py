"""Fakes of the engine, the settings file and the desktop, as far as the tray uses them."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine import Config, DeviceReading, EncoderView, Outcome, PilotlightError, Reading, Result, SettingsError, State
from engine.events import Events
from engine.units import GIB, MIB


def a_view(name: str = "minilm", state: State = State.UNLOADED, **changes: Any) -> EncoderView:
    """An encoder at rest with the default timeouts; `changes` override any field."""
    view = EncoderView(
        name=name,
        kind="dense",
        model="builtin:all-MiniLM-L6-v2",
        aliases=(),
        state=state,
        idle_timeout_seconds=30.0,
        unload_timeout_seconds=900.0,
    )
    return replace(view, **changes)


def a_gpu(index: int = 0, used: int | None = 0, total: int | None = 8 * GIB) -> DeviceReading:
    """A GPU of 8 GiB."""
    return DeviceReading(index, f"GPU {index}", total, used, None, None, None, None)


def a_reading(rss: int = 412 * MIB, *devices: DeviceReading) -> Reading:
    """A process of 412 MiB on a machine without a GPU."""
    return Reading(at=0.0, rss=rss, ram_total=16 * GIB, ram_available=8 * GIB, devices=devices)


def an_outcome(
    name: str = "minilm", result: str = "done", reason: str | None = None, state: State = State.ON_DEVICE
) -> Outcome:
    """The outcome of one control verb; `result` is spelled as on the wire."""
    return Outcome(name, Result(result), state, reason=reason)


@dataclass
class FakeEngine:
    """An engine whose state is its fields; it keeps every call in `calls`."""

    config: Config = field(default_factory=Config)
    encoders: tuple[EncoderView, ...] = (a_view(),)
    reading: Reading = field(default_factory=a_reading)
    clock: Any = time.monotonic
    events: Events = field(default_factory=Events)
    outcomes: tuple[Outcome, ...] = ()
    """The answer of the verbs for all encoders; those for one encoder answer the first."""
    loads: list[Future[Outcome]] = field(default_factory=list)
    """Loads that were requested; a test completes them."""
    calls: list[tuple[str, ...]] = field(default_factory=list)
    measured: int = 0

    def views(self, *, measured: bool = False) -> tuple[EncoderView, ...]:
        self.measured += measured
        return self.encoders

    def read_memory(self) -> Reading:
        return self.reading

    def submit_load(self, name: str, *, retry: bool = False) -> Future[Outcome]:
        self.calls.append(("load", name, *(("retry",) if retry else ())))
        self.loads.append(Future())
        return self.loads[-1]

    def offload(self, name: str) -> Outcome:
        return self._one("offload", name)

    def unload(self, name: str) -> Outcome:
        return self._one("unload", name)

    def pin(self, name: str) -> Outcome:
        return self._one("pin", name)

    def unpin(self, name: str) -> Outcome:
        return self._one("unpin", name)

    def offload_all(self) -> tuple[Outcome, ...]:
        self.calls.append(("offload_all",))
        return self.outcomes

    def unload_all(self) -> tuple[Outcome, ...]:
        self.calls.append(("unload_all",))
        return self.outcomes

    def _one(self, verb: str, name: str) -> Outcome:
        self.calls.append((verb, name))
        return self.outcomes[0] if self.outcomes else an_outcome(name)


@dataclass
class FakeSettings:
    """A settings file that keeps its edits in a list, or refuses them with `error`."""

    path: Path = Path("/nowhere/settings.toml")
    problem: SettingsError | None = None
    error: Exception | None = None
    edits: list[dict[tuple[str, ...], Any]] = field(default_factory=list)

    def edit(self, changes: dict[tuple[str, ...], Any]) -> None:
        if self.error is not None:
            raise self.error
        self.edits.append(changes)


@dataclass
class FakeDesktop:
    """A desktop that keeps the texts and files it was given."""

    copied: list[str] = field(default_factory=list)
    opened: list[Path] = field(default_factory=list)
    error: PilotlightError | None = None

    def copy_text(self, text: str) -> None:
        if self.error is not None:
            raise self.error
        self.copied.append(text)

    def open_file(self, path: Path) -> None:
        if self.error is not None:
            raise self.error
        self.opened.append(path)

"""The menu as an immutable value, built from what is true at one instant; it knows neither pystray nor Pillow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from engine.config import Config
from engine.memory import DeviceReading, Reading
from engine.state import EncoderView, State

MIB: Final = 2**20
GIB: Final = 2**30

IDLE_TIMEOUTS: Final = (0.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Seconds that the menu offers for the idle timeout; 0 = never."""

ENCODER_ROOM: Final = len(" · idle · 123 MiB · steps down in 59 s")
"""Characters after an encoder's name that its ordinary states need."""

LONGEST_ERROR: Final = 60
"""Characters of an encoder's error that its row shows; the notice and the log carry all of it."""


@dataclass(frozen=True, slots=True)
class SetLazy:
    """Load encoders on first use (true), or bring all of them to their device now and at start (false)."""

    lazy: bool


@dataclass(frozen=True, slots=True)
class SetIdleTimeout:
    """Let encoders leave their device after so many seconds without use; 0 = never."""

    seconds: float


@dataclass(frozen=True, slots=True)
class OffloadAll:
    """Take every encoder that nobody uses off its device."""


@dataclass(frozen=True, slots=True)
class CopyEndpoint:
    """Put the endpoint's address on the clipboard."""

    url: str


@dataclass(frozen=True, slots=True)
class OpenSettings:
    """Open the settings file in the person's editor."""


@dataclass(frozen=True, slots=True)
class Quit:
    """Close Pilotlight."""


Command = SetLazy | SetIdleTimeout | OffloadAll | CopyEndpoint | OpenSettings | Quit


@dataclass(frozen=True, slots=True)
class Item:
    """One row; without a command and without children it only informs."""

    text: str
    command: Command | None = None
    checked: bool | None = None
    """None where a check makes no sense."""
    radio: bool = False
    enabled: bool = True
    children: tuple[Item, ...] = ()
    room: int = 0
    """Characters to keep free for longer texts, because a panel does not widen a menu that is open."""


SEPARATOR: Final = Item("", enabled=False)
"""A line between two groups."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that the menu shows, at one instant; `now` is on the engine's monotonic clock."""

    config: Config
    views: tuple[EncoderView, ...]
    reading: Reading
    now: float
    url: str
    gpus: tuple[int, ...] = ()
    """Indices of every GPU seen in this session, so that one which falls silent keeps its row."""
    settings_problem: bool = False
    """Whether the settings file on disk has an error and is not in force."""


def build(snapshot: Snapshot) -> tuple[Item, ...]:
    """Return the rows of the menu; their number changes only with the settings."""
    return (
        _note(headline(snapshot.views)),
        *_memory(snapshot),
        SEPARATOR,
        *(_note(_encoder(view, snapshot.now), room=len(view.name) + ENCODER_ROOM) for view in snapshot.views),
        *((SEPARATOR,) if snapshot.views else ()),
        _lazy(snapshot.config.hardware.lazy_encoders),
        _idle_timeout(snapshot.config.hardware.idle_timeout_seconds),
        Item("Offload all now", OffloadAll(), enabled=any(view.state is State.ON_DEVICE for view in snapshot.views)),
        SEPARATOR,
        Item("Copy endpoint address", CopyEndpoint(snapshot.url)),
        Item(
            "Open settings file (it has an error)" if snapshot.settings_problem else "Open settings file",
            OpenSettings(),
        ),
        SEPARATOR,
        Item("Quit", Quit()),
    )


def headline(views: tuple[EncoderView, ...]) -> str:
    """Return the line that says it all; it is the icon's tooltip too."""
    loading = [view.name for view in views if view.state is State.LOADING]
    if len(loading) == 1:
        return f"Pilotlight · loading {loading[0]}"
    if loading:
        return f"Pilotlight · loading {len(loading)} encoders"
    return f"Pilotlight · {sum(view.awake for view in views)} of {len(views)} awake"


def shape(rows: tuple[Item, ...]) -> tuple[object, ...]:
    """Return what a drawn menu cannot change in place: the rows' number, order, sort and nesting."""
    return tuple(
        None if row is SEPARATOR else (row.checked is not None, row.radio, shape(row.children)) for row in rows
    )


def _note(text: str, room: int = 0) -> Item:
    return Item(text, enabled=False, room=room)


def _memory(snapshot: Snapshot) -> tuple[Item, ...]:
    devices = {device.index: device for device in snapshot.reading.devices}
    indices = sorted({*devices, *snapshot.gpus})
    names = [f"GPU {index} VRAM" for index in indices] if len(indices) > 1 else ["VRAM"]
    gpus = (_note(_vram(name, devices.get(index))) for name, index in zip(names, indices, strict=False))
    return (*gpus, _note(f"RSS {_size(snapshot.reading.rss)}"))


def _vram(name: str, device: DeviceReading | None) -> str:
    if device is None or device.vram_used is None or device.vram_total is None:
        return f"{name} unknown"
    return f"{name} {device.vram_used / GIB:.1f} / {device.vram_total / GIB:.1f} GiB"


def _encoder(view: EncoderView, now: float) -> str:
    parts = [view.name, view.status]
    if view.error is not None and view.state in (State.FAILED, State.UNAVAILABLE):
        parts.append(_clipped(view.error.message))
    if held := view.bytes_on_device + view.bytes_in_ram:
        parts.append(_size(held))
    deadline = view.next_deadline(now)
    if view.pinned:
        parts.append("pinned")
    elif deadline is not None and not view.in_flight:
        verb = "unloads" if view.state is State.IN_RAM else "steps down"
        parts.append(f"{verb} in {_countdown(deadline - now)}")
    return " · ".join(parts)


def _lazy(lazy: bool) -> Item:
    return Item("Load on first use", SetLazy(not lazy), checked=lazy)


def _idle_timeout(current: float) -> Item:
    choices = sorted({*IDLE_TIMEOUTS, current})
    return Item(
        "Idle timeout",
        children=tuple(
            Item(_timeout(seconds), SetIdleTimeout(seconds), checked=seconds == current, radio=True)
            for seconds in choices
        ),
    )


def _timeout(seconds: float) -> str:
    if seconds == 0:
        return "Never"
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:g} s"


def _countdown(seconds: float) -> str:
    whole = max(0, math.ceil(seconds))
    if whole < 120:
        return f"{whole} s"
    return f"{math.ceil(whole / 60)} min" if whole < 7200 else f"{math.ceil(whole / 3600)} h"


def _size(size: int) -> str:
    return f"{size / MIB:.0f} MiB" if size < GIB else f"{size / GIB:.1f} GiB"


def _clipped(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_ERROR else f"{line[: LONGEST_ERROR - 1]}…"

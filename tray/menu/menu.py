"""The menu as an immutable value, built from one snapshot; without pystray and Pillow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from engine import Config, EncoderView, Reading, State
from engine.settings.effective import Effective
from tray import words
from tray.menu.encoder_row import encoder_row
from tray.menu.gpu_row import gpu_row
from tray.menu.item import (
    SEPARATOR,
    Command,
    CopyEndpoint,
    Item,
    OffloadAll,
    OpenSettings,
    Quit,
    SetEagerLoad,
    SetIdleTimeout,
    SetLazy,
    SetMaxVram,
    SetUnloadTimeout,
    UnloadAll,
    note,
)

IDLE_TIMEOUTS: Final = (0.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Seconds that the menu offers for the idle timeout; 0 = never."""

UNLOAD_TIMEOUTS: Final = (0.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
"""Seconds that the menu offers for the unload timeout; 0 = never."""

BUDGETS: Final = ("0", "2", "4", "8", "-1", "-2")
"""Values that the menu offers for `max_vram`: fixed sizes, which suit GPUs of different sizes too."""

MOST_ROWS: Final = 12
"""Encoders that have their rows in the menu itself; more of them get a submenu."""

_CPU: Final = "cpu"  # as settings and views spell it

ON_A_CPU: Final = "Stepping down lowers RSS; pages stay as droppable file cache"
ON_A_GPU: Final = "Stepping down frees VRAM; weights stay in RAM"
ON_A_SHARING_GPU: Final = "Stepping down frees RAM: the GPU shares it"
"""The lines that say how much a step down saves; on a CPU pages become file cache, which the system can drop."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the menu shows, at one instant; `now` is on the engine's monotonic clock."""

    config: Config
    views: tuple[EncoderView, ...]
    reading: Reading
    now: float
    url: str
    gpus: tuple[int, ...] = ()
    """Indices of every GPU seen in this session; one whose driver stops answering keeps its row."""
    settings_problem: bool = False
    """Whether the settings file on disk has an error and is not in force."""


def build(snapshot: Snapshot) -> tuple[Item, ...]:
    """Return the rows of the menu; their number changes only with the settings, or when a first GPU appears."""
    hardware = snapshot.config.hardware
    states = {view.state for view in snapshot.views}
    has_gpu = bool(snapshot.reading.devices or snapshot.gpus)
    return (
        note(headline(snapshot.views)),
        *_memory(snapshot),
        SEPARATOR,
        *_encoders(snapshot),
        Item("Load on first use", SetLazy(not hardware.lazy_encoders), checked=hardware.lazy_encoders),
        Item("Read into RAM at start", SetEagerLoad(not hardware.eager_load), checked=hardware.eager_load),
        _choices("Idle timeout", SetIdleTimeout, IDLE_TIMEOUTS, hardware.idle_timeout_seconds),
        _choices("Unload timeout", SetUnloadTimeout, UNLOAD_TIMEOUTS, hardware.unload_timeout_seconds),
        *((_budgets(hardware.max_vram),) if has_gpu else ()),
        Item("Offload all now", OffloadAll(), enabled=State.ON_DEVICE in states),
        Item("Unload all now", UnloadAll(), enabled=not states.isdisjoint({State.ON_DEVICE, State.IN_RAM})),
        SEPARATOR,
        Item("Copy endpoint address", CopyEndpoint(snapshot.url)),
        Item(
            "Open settings file (it has an error)" if snapshot.settings_problem else "Open settings file",
            OpenSettings(),
        ),
        SEPARATOR,
        Item("Quit", Quit()),
    )


def _encoders(snapshot: Snapshot) -> tuple[Item, ...]:
    """Return the encoders' rows, in a submenu if they would make the menu higher than a screen."""
    rows = tuple(encoder_row(view, snapshot.now) for view in snapshot.views)
    if not rows:
        return ()
    return (*rows, SEPARATOR) if len(rows) <= MOST_ROWS else (Item(f"Encoders · {len(rows)}", children=rows), SEPARATOR)


def headline(views: tuple[EncoderView, ...]) -> str:
    """Return the first line of the menu, a summary, which is the icon's tooltip too."""
    fetching = next((view for view in views if view.download is not None), None)
    if fetching is not None and fetching.download is not None:
        return f"Pilotlight · {words.clipped(fetching.name, words.LONGEST_NAME)}: {words.download(fetching.download)}"
    loading = [view.name for view in views if view.state is State.LOADING]
    if len(loading) == 1:
        return f"Pilotlight · loading {words.clipped(loading[0], words.LONGEST_NAME)}"
    if loading:
        return f"Pilotlight · loading {len(loading)} encoders"
    return f"Pilotlight · {sum(view.awake for view in views)} of {len(views)} awake"


def _memory(snapshot: Snapshot) -> tuple[Item, ...]:
    devices = {device.index: device for device in snapshot.reading.devices}
    indices = sorted({*devices, *snapshot.gpus})
    names = [f"GPU {index} VRAM" for index in indices] if len(indices) > 1 else ["VRAM"]
    gpus = (gpu_row(name, devices.get(index)) for name, index in zip(names, indices, strict=False))
    return (*gpus, note(f"RSS {words.size(snapshot.reading.rss)}"), note(_given_back(snapshot)))


def _given_back(snapshot: Snapshot) -> str:
    devices = snapshot.reading.devices
    if _computes_on_a_cpu(snapshot):
        return ON_A_CPU
    return ON_A_SHARING_GPU if devices and all(device.shares_ram for device in devices) else ON_A_GPU


def _computes_on_a_cpu(snapshot: Snapshot) -> bool:
    """Whether all encoders compute on the CPU; before a first load the settings and the GPUs tell."""
    known = {view.device for view in snapshot.views if view.device is not None}
    if known:
        return known == {_CPU}
    config = snapshot.config
    configured = {Effective.of(encoder, config.hardware).device for encoder in config.encoders}
    return configured == {_CPU} or not (snapshot.reading.devices or snapshot.gpus)


def _budgets(current: str) -> Item:
    """Return a submenu of budgets: those offered, and the one in force if it is another."""
    offered = BUDGETS if current in BUDGETS else (*BUDGETS, current)
    return Item(
        "VRAM budget",
        children=tuple(
            Item(words.budget(budget), SetMaxVram(budget), checked=budget == current, radio=True) for budget in offered
        ),
    )


def _choices(text: str, command: Callable[[float], Command], offered: tuple[float, ...], current: float) -> Item:
    """Return a submenu of timeouts: those offered, and the one in force if it is another."""
    return Item(
        text,
        children=tuple(
            Item(words.timeout(seconds), command(seconds), checked=seconds == current, radio=True)
            for seconds in sorted({*offered, current})
        ),
    )

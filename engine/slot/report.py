"""The figures and notes of one slot's weights."""

from __future__ import annotations

from dataclasses import replace

from engine.adapters.protocol import Loaded
from engine.devices.placement import NOTHING
from engine.slot.transitions import BroughtUp, NoPlace, SteppedDown
from engine.state import SlotView


class Report:
    """The latest figures of every move; guarded by its slot's lock."""

    def __init__(self) -> None:
        self.device: str | None = None
        """The device that the weights were read for, and compute on."""
        self._chosen_device: str | None = None
        self._loaded: Loaded | None = None
        self._loads = 0
        self._footprint = NOTHING
        self._bytes_total: int | None = None
        self._reload_seconds: float | None = None
        self._offload_seconds: float | None = None
        self._why_down: str | None = None
        self._placement_note: str | None = None
        self._resting_note: str | None = None
        self._told: str | None = None

    def read(self, loaded: Loaded, cannot_rest: str | None) -> None:
        """Note that the weights were read from disk."""
        self._loaded = loaded
        self._loads += 1
        self._resting_note = cannot_rest
        self.device = loaded.device

    def came_up(self, up: BroughtUp, seconds: float) -> str | None:
        """Note that the weights reached RAM or a device; returns a reason that the user has not been told yet."""
        self._footprint = up.footprint
        self._bytes_total = up.footprint.total
        self._chosen_device = up.chosen_device or self._chosen_device
        self._placement_note = up.note
        self._why_down = None
        if up.loaded is None:
            self._reload_seconds = seconds
        why_here = up.placement.reason if up.placement else None
        if why_here is None and self._loaded is not None:
            why_here = self._loaded.note
        return self._news(why_here)

    def went_down(self, down: SteppedDown, seconds: float | None, reason: str | None) -> None:
        """Note that the weights are off their device; `seconds` is the time of a step to RAM, None for another."""
        self._why_down = reason
        self._footprint = down.after
        self._resting_note = down.note
        self._placement_note = None
        if seconds is not None:
            self._offload_seconds = seconds

    def found_no_place(self, refused: NoPlace) -> str | None:
        """Note that no device had room for the weights; returns a reason that the user has not been told yet."""
        self.went_down(refused.resting, None, "no room on the device")
        self._placement_note = refused.error.message
        return self._news(refused.error.message)

    def completed(self, life: SlotView) -> SlotView:
        """Return a view of the slot's life with these figures and notes added."""
        loaded = self._loaded
        return replace(
            life,
            revision=loaded.revision if loaded else None,
            device=self.device,
            chosen_device=self._chosen_device,
            streamable=loaded.streamable if loaded else None,
            metadata=loaded.metadata if loaded else {},
            import_seconds=loaded.import_seconds if loaded else None,
            load_seconds=loaded.load_seconds if loaded else None,
            reload_seconds=self._reload_seconds,
            offload_seconds=self._offload_seconds,
            loads=self._loads,
            stepped_down_because=self._why_down,
            bytes_total=self._bytes_total,
            note=_joined(
                *((loaded.note, *loaded.assumptions) if loaded else ()), self._placement_note, self._resting_note
            ),
            bytes_on_device=self._footprint.on_device,
            bytes_in_ram=self._footprint.in_ram,
        )

    def _news(self, words: str | None) -> str | None:
        news = None if words == self._told else words
        self._told = words
        return news


def _joined(*notes: str | None) -> str | None:
    return " ".join(dict.fromkeys(filter(None, notes))) or None

"""What is known of one encoder's weights: how they came up, where they are, what they take, what there is to say."""

from __future__ import annotations

from dataclasses import replace

from engine.adapters.protocol import Loaded
from engine.devices.footprint import NOTHING, Footprint
from engine.slot.descent import Descent
from engine.slot.transitions import Ascent, Refusal
from engine.state import EncoderView


class Record:
    """Kept by one slot, under its lock."""

    def __init__(self) -> None:
        self.device: str | None = None
        """What the weights were read for, and compute on."""
        self._chosen_device: str | None = None
        self._loaded: Loaded | None = None
        self._loads = 0
        self._footprint = NOTHING
        self._bytes_total: int | None = None
        self._reload_seconds: float | None = None
        self._offload_seconds: float | None = None
        self._why_down: str | None = None
        self._standing: str | None = None
        self._resting: str | None = None
        self._told: str | None = None

    def read(self, loaded: Loaded, cannot_rest: str | None) -> None:
        """The weights were read from disk."""
        self._loaded = loaded
        self._loads += 1
        self._resting = cannot_rest
        self.device = loaded.device

    def came_up(self, ascent: Ascent, seconds: float) -> str | None:
        """The weights reached RAM or a device; returns what a person has not been told yet."""
        self._footprint = ascent.footprint
        self._bytes_total = ascent.footprint.total
        self._chosen_device = ascent.chosen_device or self._chosen_device
        self._standing = ascent.note
        self._why_down = None
        if ascent.loaded is None:
            self._reload_seconds = seconds
        why_here = ascent.placement.reason if ascent.placement else None
        if why_here is None and self._loaded is not None:
            why_here = self._loaded.note
        return self._news(why_here)

    def went_down(self, descent: Descent, seconds: float | None, reason: str | None) -> None:
        """The weights rest, or are gone; `seconds` is what the step to RAM took, where it was one."""
        self._why_down = reason
        self._footprint = descent.after
        self._resting = descent.note
        self._standing = None
        if seconds is not None:
            self._offload_seconds = seconds

    def was_refused(self, refusal: Refusal) -> str | None:
        """The weights rest because no device had room for them; returns what a person has not been told yet."""
        self.went_down(refusal.resting, None, "no room on the device")
        self._standing = refusal.error.message
        return self._news(refusal.error.message)

    def drawn_into(self, view: EncoderView) -> EncoderView:
        """Return `view` with what is recorded here."""
        loaded = self._loaded
        return replace(
            view,
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
            note=_joined(loaded.note if loaded else None, self._standing, self._resting),
            bytes_on_device=self._footprint.on_device,
            bytes_in_ram=self._footprint.in_ram,
        )

    def _news(self, words: str | None) -> str | None:
        news = None if words == self._told else words
        self._told = words
        return news


def _joined(*notes: str | None) -> str | None:
    return " ".join(dict.fromkeys(filter(None, notes))) or None


def with_bytes(view: EncoderView, footprint: Footprint) -> EncoderView:
    """Return `view` with where the weights are at this instant."""
    return replace(view, bytes_on_device=footprint.on_device, bytes_in_ram=footprint.in_ram)

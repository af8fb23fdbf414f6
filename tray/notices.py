"""Which event deserves a balloon, and its words; it knows neither pystray nor Pillow."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import PilotlightError
from engine.events import Event, SettingsRefused, StateChanged
from engine.state import State


@dataclass(frozen=True, slots=True)
class Notice:
    """A few words for the person at the desktop."""

    title: str
    message: str


def notice_for(event: Event) -> Notice | None:
    """Return what to tell about `event`, or None where the menu alone is enough."""
    if isinstance(event, SettingsRefused):
        return of_error(event.error)
    if isinstance(event, StateChanged) and event.new in (State.FAILED, State.UNAVAILABLE):
        if event.error is not None:
            return Notice(f"{event.name}: {event.error.title}", str(event.error))
        words = "could not be loaded" if event.new is State.FAILED else "cannot be used"
        return Notice(f"{event.name} {words}", event.reason or "The log says why.")
    return None


def of_error(error: PilotlightError) -> Notice:
    """Return an error as a notice: its title, what happened and what to do."""
    return Notice(error.title, str(error))

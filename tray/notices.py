"""Notices: the events that deserve a balloon, and its words; without pystray and Pillow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from engine import Outcome, PilotlightError, Result, SettingsRefused, State, StateChanged
from engine.events import Event

_WHY_NOT: Final = {Result.BUSY: "in use or on its way", Result.REFUSED: "pinned"}


@dataclass(frozen=True, slots=True)
class Notice:
    """A few words for the user, shown as a balloon."""

    title: str
    message: str


def notice_for(event: Event) -> Notice | None:
    """Return the notice about `event`, or None if the menu alone is enough."""
    if isinstance(event, SettingsRefused):
        return of_error(event.error)
    if isinstance(event, StateChanged) and event.new in (State.FAILED, State.UNAVAILABLE):
        if event.error is not None:
            return Notice(f"{event.name}: {event.error.title}", str(event.error))
        words = "could not be loaded" if event.new is State.FAILED else "cannot be used"
        return Notice(f"{event.name} {words}", event.reason or "The log says why.")
    if isinstance(event, StateChanged) and event.old is State.LOADING and event.reason:
        return Notice(f"{event.name} is not where the settings want it", event.reason)
    return None


def of_error(error: PilotlightError) -> Notice:
    """Return an error as a notice: its title, its message and its next step."""
    return Notice(error.title, str(error))


def of_outcomes(outcomes: Iterable[Outcome], asked: State) -> Notice | None:
    """Return a notice of the encoders that did not reach the state `asked`, with the reasons; None if all did."""
    found = [(title, outcome) for outcome in outcomes if (title := _shortfall(outcome, asked)) is not None]
    if not found:
        return None
    reasons = ((outcome.name, outcome.reason or _WHY_NOT.get(outcome.result, outcome.result)) for _, outcome in found)
    titles = {title for title, _ in found}
    return Notice(
        titles.pop() if len(titles) == 1 else "Not all as you asked",
        "\n".join(f"{name}: {reason.rstrip('.')}." for name, reason in reasons),
    )


def _shortfall(outcome: Outcome, asked: State) -> str | None:
    if outcome.result is not Result.DONE:
        return "Memory not given back" if outcome.state is State.UNLOADED else "Left in place"
    return "Unloaded instead" if outcome.reason and outcome.state is not asked else None

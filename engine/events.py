"""Events of the engine: publish and subscribe, synchronous, without a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from engine.errors import PilotlightError
from engine.state import Download, State


@dataclass(frozen=True, slots=True)
class StateChanged:
    """One encoder reached another rung; `reason` says why when a policy wanted it."""

    name: str
    old: State
    new: State
    reason: str | None = None
    error: PilotlightError | None = None


@dataclass(frozen=True, slots=True)
class TimerSet:
    """One encoder may step down at another time than its last change of state said."""

    name: str


@dataclass(frozen=True, slots=True)
class Downloading:
    """Files of one encoder's model come from the hub: about once a second, and at the end."""

    name: str
    download: Download


@dataclass(frozen=True, slots=True)
class SettingsApplied:
    """New settings are in force."""


@dataclass(frozen=True, slots=True)
class SettingsRefused:
    """The settings file cannot be used; the settings from before stay in force."""

    error: PilotlightError


SlotEvent = StateChanged | TimerSet | Downloading
"""Of one set of weights."""
Event = SlotEvent | SettingsApplied | SettingsRefused
Subscriber = Callable[[Event], None]


class Events:
    """Calls every subscriber for every event, on the publisher's thread and under no lock.

    A subscriber must be quick and must not raise: put the event on a queue, set a flag.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscribers: tuple[Subscriber, ...] = ()

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Add `subscriber` and return the call that takes it away again."""
        with self._lock:
            self._subscribers = (*self._subscribers, subscriber)

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers = tuple(s for s in self._subscribers if s is not subscriber)

        return unsubscribe

    def publish(self, event: Event) -> None:
        """Tell every subscriber."""
        for subscriber in self._subscribers:
            subscriber(event)

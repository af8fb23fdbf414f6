"""Reasons for which weights that are up must leave before they are used again."""

from __future__ import annotations

from dataclasses import dataclass

from engine.adapters.protocol import Adapter
from engine.slot.admission import Admission
from engine.state import State


@dataclass(frozen=True, slots=True)
class Departure:
    """The weights of one climb must not be used again: the rung to take them to instead, and the reason."""

    climb: int
    """The number of the climb that brought them up."""
    target: State
    reason: str


class Departures:
    """The departures of one slot."""

    def __init__(self, adapter: Adapter, admission: Admission) -> None:
        self._adapter = adapter
        self._admission = admission
        self._condemned: Departure | None = None

    def condemn(self, departure: Departure) -> None:
        """Make a departure due before the next use; called under the slot's lock."""
        self._condemned = departure

    def due(self, name: str, climb: int, device: str | None) -> Departure | None:
        """Return the departure of the weights of `climb`, None where they may be used.

        Called under a lease, so that they stay up meanwhile; other encoders may be made to step down.
        """
        if self._condemned is not None and self._condemned.climb == climb:
            return self._condemned
        if changed := self._adapter.stale():
            # Its pages must not be touched: they may be gone, or another file's.
            return Departure(climb, State.UNLOADED, f"{changed} since it was loaded")
        if device is None:
            return None
        reason = self._admission.reclaim(name, device)
        return None if reason is None else Departure(climb, State.IN_RAM, reason)

"""Events and users that several tests of a slot ask about."""

from __future__ import annotations

from engine_fakes import SlotBench

from engine.events import StateChanged


def errors_told(bench: SlotBench) -> list[Exception]:
    """Every error that was published, in order."""
    return [event.error for event in bench.events if isinstance(event, StateChanged) and event.error]

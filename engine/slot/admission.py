"""The protocol through which a slot asks for room on a device, and its null implementation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from engine.devices.placement import Needs, Placement


class Admission(Protocol):
    """The owner of the devices' memory, as a slot sees it."""

    def exclusive(self, device: str) -> AbstractContextManager[object]:
        """Keep other encoders from going up to `device` meanwhile, so that the room that was made is still there."""
        ...

    def make_room(self, name: str, needs: Needs) -> Iterator[Placement]:
        """Make other encoders step down, and yield one placement after the other, the best first.

        The next one is asked for where memory ran out in the one before. Raises NoRoom after the last one.
        """
        ...

    def reclaim(self, name: str, device: str) -> str | None:
        """Make other encoders step down where `device` is over its budget, before a use of the one called `name`.

        Returns the reason why that encoder itself must come up again before the use, None for no reason.
        """
        ...


class Unbounded:
    """Room for every encoder, whole."""

    def exclusive(self, device: str) -> AbstractContextManager[object]:
        """Return a context that keeps no encoder away."""
        return nullcontext()

    def make_room(self, name: str, needs: Needs) -> Iterator[Placement]:
        """Yield the device of the settings, as often as it is asked for."""
        while True:
            yield Placement(needs.device)

    def reclaim(self, name: str, device: str) -> str | None:
        """Return None."""
        return None

"""What a slot asks before its encoder goes up to a device, and while it stands there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from engine.devices.placement import Needs, Placement


class Admission(Protocol):
    """Whoever shares a device's memory out among the encoders."""

    def turn(self, device: str) -> AbstractContextManager[object]:
        """Keep others from going up to `device` meanwhile, so that what was planned is still there when it is taken."""
        ...

    def placements(self, name: str, needs: Needs) -> Iterator[Placement]:
        """Return how an encoder may go up, the best way first; the next one is asked for where memory ran out.

        Asking makes others step down. Raises NoRoom after the last one.
        """
        ...

    def misplaced(self, name: str, device: str) -> str | None:
        """Say why an encoder that stands on `device` should come up anew before its next use, None for no reason.

        Asking may make others step down.
        """
        ...


class Unbounded:
    """Room for everybody, whole."""

    def turn(self, device: str) -> AbstractContextManager[object]:
        """Keep nobody from anything."""
        return nullcontext()

    def placements(self, name: str, needs: Needs) -> Iterator[Placement]:
        """Return the device that it wishes for, as often as it is asked for."""
        while True:
            yield Placement(needs.device)

    def misplaced(self, name: str, device: str) -> str | None:
        """Return None."""
        return None

"""When and by whom an encoder was used, and what a request asked of its timer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.errors import InvalidInput


def check_keep_alive(value: object) -> None:
    """Raise InvalidInput for what is neither None nor a finite number of seconds."""
    try:
        if value is None or (isinstance(value, int | float) and math.isfinite(value)):
            return
    except OverflowError:  # a whole number that is too long for a float
        pass
    shown = "too long a number" if isinstance(value, int) else repr(value)[:40]
    raise InvalidInput(
        f"keep_alive is {shown}, which is no number of seconds.",
        param="keep_alive",
        next_step="Give seconds, 0 to unload after the use, or a negative number to stay.",
    )


@dataclass(frozen=True, slots=True)
class Use:
    """One use that ended: whose, how many seconds it took, and how many it asked to stay."""

    by: str | None
    seconds: float
    keep_alive: float | None


@dataclass(slots=True)
class IdleClock:
    """The instants that a slot's timers count from, in seconds on its clock; the slot's lock guards them."""

    last_used: float | None = None
    """When the last use, or a climb that nobody used yet, ended."""
    last_used_by: str | None = None
    first_use_seconds: float | None = None
    """What the first use since the last climb took."""
    came_up_at: float | None = None
    """When the weights last reached RAM or their device, until they step down."""
    stepped_down_at: float | None = None
    keep_alive_seconds: float | None = None
    """What a request set over the idle timeout, until another one does or the encoder steps down."""

    def came_up(self, now: float) -> None:
        """The weights reached RAM or their device."""
        self.last_used = self.came_up_at = now
        self.first_use_seconds = None
        self.stepped_down_at = None

    def used(self, now: float, use: Use) -> bool:
        """A use ended; returns whether it set another timer."""
        self.last_used = now
        self.last_used_by = use.by
        if self.first_use_seconds is None:
            self.first_use_seconds = use.seconds
        if use.keep_alive is None or use.keep_alive == self.keep_alive_seconds:
            return False
        self.keep_alive_seconds = use.keep_alive
        return True

    def stepped_down(self, now: float) -> None:
        """The weights went down: what a request had set is over."""
        self.stepped_down_at = now
        self.came_up_at = None
        self.keep_alive_seconds = None

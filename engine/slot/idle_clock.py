"""The last use of an encoder, and the instants that its timers count from."""

from __future__ import annotations

from dataclasses import dataclass

from engine.settings.effective import Timeouts


@dataclass(frozen=True, slots=True)
class Use:
    """A use that ended: its app, its seconds, and its `keep_alive`."""

    by: str | None
    seconds: float
    keep_alive: float | None


@dataclass(slots=True)
class IdleClock:
    """The timeouts of a slot and the instants that they count from, in seconds on its clock; guarded by its lock."""

    timeouts: Timeouts
    last_used: float | None = None
    """The end of the last use, or of a climb that was not used yet."""
    last_used_by: str | None = None
    first_use_seconds: float | None = None
    """The time that the first use since the last climb took."""
    came_up_at: float | None = None
    """The instant at which the weights last reached RAM or their device, until they step down."""
    stepped_down_at: float | None = None
    keep_alive_seconds: float | None = None
    """Seconds that a request set over the idle timeout, until another one does or the encoder steps down."""

    def configure(self, timeouts: Timeouts) -> None:
        """Put new timeouts in force, also over a keep_alive that was set before."""
        self.timeouts = timeouts
        self.keep_alive_seconds = timeouts.bounded(self.keep_alive_seconds)

    def came_up(self, now: float) -> None:
        """Note that the weights reached RAM or their device."""
        self.last_used = self.came_up_at = now
        self.first_use_seconds = None
        self.stepped_down_at = None

    def used(self, now: float, use: Use) -> bool:
        """Note the end of a use; returns whether it set another timer."""
        self.last_used = now
        self.last_used_by = use.by
        if self.first_use_seconds is None:
            self.first_use_seconds = use.seconds
        keep_alive = self.timeouts.bounded(use.keep_alive)
        if keep_alive is None or keep_alive == self.keep_alive_seconds:
            return False
        self.keep_alive_seconds = keep_alive
        return True

    def stepped_down(self, now: float) -> None:
        """Note that the weights went down, which ends the keep_alive of requests."""
        self.stepped_down_at = now
        self.came_up_at = None
        self.keep_alive_seconds = None

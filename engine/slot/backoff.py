"""The delay before a failed load may be retried, and the error that waiters get meanwhile."""

from __future__ import annotations

from typing import Final

from engine.errors import EncoderError, LoadFailed, NoRoom, Unavailable
from engine.state import ErrorView, State

_FIRST_RETRY_SECONDS: Final = 5.0
_LONGEST_RETRY_SECONDS: Final = 300.0


class Backoff:
    """The last failed climb of one slot; guarded by its lock."""

    def __init__(self) -> None:
        self.error: ErrorView | None = None
        """The error of the last climb; None after one that went well."""
        self._failures = 0
        self._excused: ErrorView | None = None
        self._held_off: tuple[float, NoRoom] | None = None

    def reset(self) -> None:
        """Forget all errors after a climb that went well."""
        self.error = None
        self._held_off = None
        self._failures = 0

    def forget(self) -> None:
        """Keep no error, after an end that was no error of the encoder's."""
        self.error = None

    def record(self, error: EncoderError, now: float) -> None:
        """Keep `error`; unless it is hopeless, a retry is allowed after a delay that doubles up to 300 s."""
        retry_at = None
        if not isinstance(error, Unavailable):
            self._failures += 1
            wait = min(_LONGEST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2.0 ** min(self._failures - 1, 10))
            retry_at = now + wait
            if isinstance(error, LoadFailed):
                error.retry_in_seconds = wait
        self.error = ErrorView(error.title, error.message, error.next_step, retry_at)

    def excuse(self, error: ErrorView) -> None:
        """End the delay after `error`, unless another one came meanwhile, because its cause may be gone."""
        self._excused = error

    def hold_off(self, refusal: NoRoom, now: float) -> None:
        """Raise `refusal` in place of another load for the seconds that it names."""
        self._held_off = (now + (refusal.retry_in_seconds or 0.0), refusal)

    def raise_if_waiting(self, state: State, now: float, *, waited: bool) -> None:
        """Raise the kept error while its delay lasts, and for a caller that `waited` for the climb that failed."""
        if self._held_off is not None and now < self._held_off[0]:
            refusal = self._held_off[1]
            raise NoRoom(refusal.message, next_step=refusal.next_step, retry_in_seconds=refusal.retry_in_seconds)
        if self.error is None:
            return
        if state is State.FAILED and self.error.retry_at is not None:
            wait = 0.0 if self.error is self._excused else max(0.0, self.error.retry_at - now)
            if wait > 0 or waited:
                raise LoadFailed(
                    self.error.message,
                    title=self.error.title,
                    next_step=self.error.next_step,
                    retry_in_seconds=wait,
                )
        if state is State.UNAVAILABLE and waited:
            raise Unavailable(self.error.message, title=self.error.title, next_step=self.error.next_step)

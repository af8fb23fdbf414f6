"""How one encoder is used, apart from others that may share its weights."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Usage:
    """Its own requests and its own pin; any thread may use it."""

    def __init__(self, *, pinned: bool) -> None:
        self.pinned = pinned
        """Whether it holds the weights where they are, which others may do too."""
        self.in_flight = 0
        self.last_used_by: str | None = None
        self.keep_alive: float | None = None
        """Seconds that a request asked for over its idle timeout; worth nothing once the weights stepped down."""
        self._lock = threading.Lock()

    @contextmanager
    def counted(self, used_by: str | None) -> Iterator[None]:
        """Count one request of `used_by`."""
        with self._lock:
            self.in_flight += 1
        try:
            yield
        finally:
            with self._lock:
                self.in_flight -= 1
                self.last_used_by = used_by or self.last_used_by

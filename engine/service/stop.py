"""The request to end, and the signals that make it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from engine import discovery

_REPEAT_SECONDS: Final = 0.3

_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, SIGTERM, and on POSIX the closing of the terminal."""


class Stop:
    """A shutdown request from a signal, the menu or the endpoint; a second signal ends at once."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._also: Callable[[], None] | None = None
        self._signalled_at: float | None = None

    def request(self) -> None:
        """Request the end and return at once; from any thread."""
        self._requested.set()
        if self._also is not None:
            threading.Thread(target=self._also, name="engine-stop", daemon=True).start()

    def wait(self) -> None:
        """Wait until the end is requested."""
        # Waiting with a limit lets signals through on Windows.
        while not self._requested.wait(1.0):
            pass

    @contextlib.contextmanager
    def also(self, call: Callable[[], None]) -> Iterator[None]:
        """Make a request call `call` too, at once if it was made already."""
        self._also = call
        if self._requested.is_set():
            self.request()
        try:
            yield
        finally:
            self._also = None

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Turn the signals that end a program into requests."""
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        self.catch_signals()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def catch_signals(self) -> None:
        """Install the handlers; needed again after a GUI loop has installed its own."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if self._signalled_at is not None:
            # A kill of a process and then of its group arrives twice; a second Ctrl-C comes later.
            if now - self._signalled_at > _REPEAT_SECONDS:
                discovery.withdraw()
                os._exit(128 + number)
            return
        self._signalled_at = now
        # On a thread, because this one may be inside `wait()` and hold the very lock that `set()` takes.
        threading.Thread(target=self.request, name="engine-stop", daemon=True).start()

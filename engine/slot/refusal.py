"""The Unavailable that a climb ended in, raised in place of another climb until something has changed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from engine.adapters.protocol import Adapter
from engine.errors import Unavailable

_log = logging.getLogger(__name__)


class Refusal:
    """The error that one slot's climbs end in as things are: that of a probe, which is asked again, or of a load.

    Written by the thread that loads, one at a time; any thread may `raise_again` or `forget`, under no lock.
    """

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._error: Unavailable | None = None
        self._is_of_probe = False

    def raise_again(self, name: str) -> None:
        """Raise the error of the last climb of encoder `name`, unless another one may end otherwise by now."""
        error = self._error
        if error is None:
            return
        change = self._change(error)
        if change is None:
            raise _copy(error)
        _log.info("%s is tried again: %s", name, change)

    def _change(self, error: Unavailable) -> str | None:
        """The change since, in words; None for no change."""
        if not self._is_of_probe:
            return self._adapter.mended()
        try:
            self._adapter.probe()
        except Unavailable as now:
            return None if now.message == error.message else now.message
        return "what was missing is there"

    @contextmanager
    def kept(self, *, of_probe: bool = False) -> Iterator[None]:
        """Keep the Unavailable that the load or probe inside ends in; another end of it leaves nothing kept."""
        self._error = None
        self._is_of_probe = of_probe
        try:
            yield
        except Unavailable as error:
            self._error = _copy(error)
            raise

    def forget(self) -> None:
        """Let the next use load again, because a person asks for it."""
        self._error = None


def _copy(error: Unavailable) -> Unavailable:
    """A new error of the same words: the frames of the other one refer to what was half loaded."""
    return Unavailable(error.message, title=error.title, next_step=error.next_step)

"""The Unavailable that a load ended in, raised in place of another load until something has changed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from engine.adapters.protocol import Adapter
from engine.errors import Unavailable

_log = logging.getLogger(__name__)


class Refusal:
    """The error that one slot's loads end in as things are; a failed `probe` is none, because a probe costs little.

    Written by the thread that loads, one at a time; any thread may `raise_again` or `forget`, under no lock.
    """

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._error: Unavailable | None = None

    def raise_again(self, name: str) -> None:
        """Raise the error of the last load of encoder `name`, unless a change may let another one end otherwise."""
        error = self._error
        if error is None:
            return
        change = self._adapter.mended()
        if change is None:
            raise Unavailable(error.message, title=error.title, next_step=error.next_step)
        _log.info("%s is tried again: %s", name, change)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the Unavailable that the load inside ends in; another end of it leaves nothing kept."""
        self._error = None
        try:
            yield
        except Unavailable as error:
            # A new one: the frames of that one refer to what was half loaded.
            self._error = Unavailable(error.message, title=error.title, next_step=error.next_step)
            raise

    def forget(self) -> None:
        """Let the next use load again, because a person asks for it."""
        self._error = None

"""The proxy of taggers: the words of a text, their parts of speech, and the names in it."""

from __future__ import annotations

from collections.abc import Sequence

from engine.operations.tag import Tag, Tagged
from engine.proxies.proxy import Proxy


class TagProxy(Proxy):
    """Tokens, parts of speech and entities."""

    def tag(self, texts: Sequence[str], *, keep_alive: float | None = None) -> tuple[Tagged, ...]:
        """Return the tokens and entities of each text; their offsets count characters, as Python's indexes do.

        `keep_alive` is as in `DenseProxy.encode`. No texts load nothing. Raises InvalidInput, LoadFailed, Unavailable,
        QueueFull or Closed.
        """
        return self._run(Tag(texts), keep_alive)

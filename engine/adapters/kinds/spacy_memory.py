"""The memory that a spaCy pipeline takes for each word that is new to it, and the bounds of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

KEPT_STRINGS: Final = 20_000
"""New strings that stay, about 10 MiB: those of common words, which are then found twice as fast as in a zone."""
MOST_STRINGS: Final = 200_000
"""New strings after which a pipeline without zones is loaded again, about 100 MiB."""
_MOST_LEMMAS: Final = 10_000


class SpacyMemory:
    """The bounds of one loaded pipeline; it holds no reference to it.

    spaCy keeps every string that it met. A memory zone gives those of a block back at its end, with all that refers to
    them, so a part of the pipeline that keeps a `Doc` would read freed memory later. Only spaCy's own parts are known
    to keep none; a pipeline with others is loaded again once it has grown too far.
    """

    def __init__(self, pipeline: Any) -> None:
        self._at_load = len(pipeline.vocab.strings)
        self._zones = _is_all_spacys(pipeline)

    @contextmanager
    def bounded(self, pipeline: Any, characters: int) -> Iterator[None]:
        """Run a block on texts with this number of `characters`; no document of it may be used after it."""
        try:
            # A word with its lower case, its shape and its ends is about one new string for two characters.
            if self._zones and self._new_strings(pipeline) + characters // 2 > KEPT_STRINGS:
                with pipeline.memory_zone():
                    yield
            else:
                yield
        finally:
            _forget_lemmas(pipeline)

    def outgrown(self, pipeline: Any) -> str | None:
        """Return in words why the pipeline must be loaded again; None while it need not."""
        if self._zones or self._new_strings(pipeline) <= MOST_STRINGS:
            return None
        return f"it has taken up {MOST_STRINGS} new words"

    def _new_strings(self, pipeline: Any) -> int:
        return len(pipeline.vocab.strings) - self._at_load


def _forget_lemmas(pipeline: Any) -> None:
    from spacy.pipeline import Lemmatizer

    for _, part in pipeline.pipeline:
        # A lemmatizer keeps the forms of every word too, in a table that no zone empties.
        if isinstance(part, Lemmatizer) and len(part.cache) > _MOST_LEMMAS:
            part.cache.clear()


def _is_all_spacys(pipeline: Any) -> bool:
    parts = [pipeline.tokenizer, *(part for _, part in pipeline.pipeline)]
    return all(_module(part).partition(".")[0] == "spacy" for part in parts)


def _module(part: Any) -> str:
    """Return the module of a part: a function, or an object of a class."""
    return str(getattr(part, "__module__", None) or type(part).__module__)

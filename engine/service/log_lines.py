"""The lines of the log: of limited length and number, whatever a request, a library or a model's files contain."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator
from typing import Final

MOST_CHARACTERS: Final = 2_000
"""Length of a line."""
_MOST_ERROR_CHARACTERS: Final = 500
_MOST_FRAMES: Final = 20
"""Frames of one traceback, the innermost ones."""
_MOST_ERRORS: Final = 5
"""Errors of one chain of causes."""
_MOST_REPEATS: Final = 5
_REPEAT_SECONDS: Final = 600.0

_OURS: Final = ("engine", "tray", "__main__")
_OF_REQUESTS: Final = ("uvicorn", "asyncio", "concurrent", "engine.http", "engine.serving", "engine.adapters.kinds")
"""Loggers of errors that may quote a request."""

# Control characters, line ends, marks that change the direction of the text, and halves of surrogate pairs.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Lines(logging.Formatter):
    """Formats a record as one line; a traceback follows it only where the same one was not written before."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(threadName)s: %(message)s")
        self._written: set[object] = set()

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the lines of its traceback."""
        record.message = record.getMessage().strip()
        record.asctime = self.formatTime(record)
        line = in_one_line(self.formatMessage(record), MOST_CHARACTERS)
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return line
        key = _place(error)
        if key in self._written:
            return f"{line} ({type(error).__name__}, with the same traceback as before)"
        self._written.add(key)
        return "\n".join([line, *_told(error, _is_of(record.name, _OF_REQUESTS))])


class Repeats(logging.Filter):
    """Leaves out what a library repeats from one place of its code, as for each text that it reads."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[object, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write the record."""
        if _is_of(record.name, _OURS):
            return True
        # A warning of Python's begins with the place that it is about; its own is inside the logging module.
        message = record.getMessage() if record.name == "py.warnings" else ""
        place = message.split(": ", 2)[:2] if message else (record.pathname, record.lineno)
        began, count = self._seen.get(key := tuple(place), (record.created, 0))
        if record.created - began > _REPEAT_SECONDS:
            began, count = record.created, 0
        self._seen[key] = began, count + 1
        return count < _MOST_REPEATS


def in_one_line(text: str, most: int) -> str:
    """Return `text` in one line of at most about `most` characters, with escapes for what a terminal would obey."""
    escaped = _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text[:most])
    left_out = len(text) + len(escaped) - len(text[:most]) - most
    return escaped if left_out <= 0 else f"{escaped[:most]} ... ({left_out} more characters)"


def _told(error: BaseException, of_request: bool) -> Iterator[str]:
    """Yield the lines of an error and its causes, the first cause last."""
    for one in _chain(error):
        words = str(one)
        # Python and its libraries put what they were given in quotes: it may be the text of a request.
        quotes = of_request and any(mark in words for mark in "'\"`")
        shown = "(its words may quote the request)" if quotes else in_one_line(words, _MOST_ERROR_CHARACTERS)
        yield f"  {type(one).__module__}.{type(one).__qualname__}: {shown}"
        for frame in traceback.extract_tb(one.__traceback__)[-_MOST_FRAMES:]:
            yield f"    {frame.filename}:{frame.lineno} in {frame.name}: {in_one_line(frame.line or '', 200)}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    for _ in range(_MOST_ERRORS):
        yield error
        following = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if following is None:
            return
        error = following


def _place(error: BaseException) -> object:
    """Return a key of the innermost code that raised it, equal for the same error met further out."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return (type(error), *((frame.filename, frame.lineno) for frame in frames))


def _is_of(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)

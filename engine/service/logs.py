"""The log: on the terminal and in a file."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from engine import paths
from engine.service.log_lines import Lines, Repeats

MOST_BYTES: Final = 1_000_000
"""Size of the file after which it becomes `pilotlight.log.1` and a new one begins; the older one is dropped."""


@contextlib.contextmanager
def logging_on() -> Iterator[None]:
    """Log to the terminal, if there is one, and to a file of limited size."""
    handlers: list[logging.Handler] = []
    if sys.stderr is not None:
        handlers.append(logging.StreamHandler())
        handlers[0].setFormatter(Lines())
    path = paths.state_folder() / "pilotlight.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(_File(path))
    except OSError as error:
        if sys.stderr is not None:
            sys.stderr.write(f"no log file: {error}\n")
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    for handler in handlers:
        handler.addFilter(Repeats())
        root.addHandler(handler)
    logging.captureWarnings(True)
    for library in ("sentence_transformers", "transformers", "httpx", "uvicorn", "filelock"):
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


class _File(RotatingFileHandler):
    """The file and the one before it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=MOST_BYTES, backupCount=1, encoding="utf-8")
        self.setFormatter(Lines())

    def doRollover(self) -> None:  # noqa: N802 - the library's name
        """Begin a new file, in which no traceback has been written yet."""
        self.setFormatter(Lines())
        super().doRollover()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """Drop the record: on a full disk the library would print a traceback for each one to the terminal."""

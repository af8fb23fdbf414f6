"""The log: on the terminal and in a file."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler

from engine import paths


@contextlib.contextmanager
def logging_on() -> Iterator[None]:
    """Log to the terminal, if there is one, and to a file of limited size."""
    handlers: list[logging.Handler] = []
    if sys.stderr is not None:
        handlers.append(logging.StreamHandler())
    path = paths.state_folder() / "pilotlight.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A path need not be text, and a line that names it must be written all the same.
        log = RotatingFileHandler(path, maxBytes=1_000_000, backupCount=1, encoding="utf-8", errors="backslashreplace")
        handlers.append(log)
    except OSError as error:
        if sys.stderr is not None:
            sys.stderr.write(f"no log file: {error}\n")
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(threadName)s: %(message)s"))
        root.addHandler(handler)
    for library in ("sentence_transformers", "transformers", "httpx", "uvicorn", "filelock"):
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        yield
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()

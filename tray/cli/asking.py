"""Items answered in one JSON line each: by the running Pilotlight, else by an engine in this process."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from engine import Downloading
from engine.events import Event
from tray import words
from tray.cli import access

if TYPE_CHECKING:
    from engine import EngineInterface
    from engine.client.client import Client

BATCH: Final = 256
"""Texts in one request."""
MOST: Final = 2048
"""Items that the endpoint takes in one request."""

Item = TypeVar("Item")
Line = dict[str, Any]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a command the options that all commands of this kind have."""
    parser.add_argument("--encoder", metavar="NAME", help="which encoder; without it the default one")
    access.add_config(parser)


def add_texts(parser: argparse.ArgumentParser) -> None:
    """Give a command its texts."""
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts; - reads one per line from standard input")


def texts_of(given: Sequence[str]) -> Iterator[str]:
    """Return the texts of the command line; `-`, or no text at all, means the lines of standard input."""
    for text in given or ["-"]:
        if text == "-":
            yield from (line.rstrip("\r\n") for line in sys.stdin or ())
        else:
            yield text


def ask(
    options: argparse.Namespace,
    items: Iterable[Item],
    of_app: Callable[[Client, list[Item]], Iterable[Line]],
    of_engine: Callable[[EngineInterface, list[Item]], Iterable[Line]],
    size: int | None = None,
) -> int:
    """Print the answers for `items`, asked in batches of `size` or BATCH, and return the exit status.

    `of_app` asks the running Pilotlight, `of_engine` an engine in this process.
    """
    client = access.running()
    if client is not None:
        for batch in _batched(items, size or BATCH):
            _show(of_app(client, batch))
        return 0
    from engine import Engine

    engine = Engine(access.settings(options.config).read())
    engine.events.subscribe(_tell)
    try:
        for batch in _batched(items, size or BATCH):
            _show(of_engine(engine, batch))
    finally:
        if not engine.close(timeout=1.0):
            # Ctrl-C during a load, which cannot be interrupted; ending the interpreter now would crash it.
            os._exit(130)
    return 0


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch


def _show(lines: Iterable[Line]) -> None:
    for line in lines:
        print(json.dumps(line), flush=True)


def _tell(event: Event) -> None:
    """Print the progress of a download, if standard error is a terminal."""
    if isinstance(event, Downloading) and sys.stderr is not None and sys.stderr.isatty():
        print(f"pilotlight: {event.name}: {words.download(event.download)}", file=sys.stderr)

"""Items answered one JSON line each: by the Pilotlight that runs, else by an engine in this process."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from engine.events import Downloading, Event
from tray import words
from tray.cli import access

if TYPE_CHECKING:
    from engine.client.client import Client
    from engine.engine import Engine

BATCH: Final = 256
"""Texts that are asked about at once."""
MOST: Final = 2048
"""Items that one request may have."""

Item = TypeVar("Item")
Line = dict[str, Any]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a command the options that every question has."""
    parser.add_argument("--encoder", metavar="NAME", help="which encoder; without it the default one")
    access.add_config(parser)


def add_texts(parser: argparse.ArgumentParser) -> None:
    """Give a command texts to ask about."""
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts; - reads one per line from standard input")


def texts_of(given: Sequence[str]) -> Iterator[str]:
    """Return the texts of the command line, with standard input's lines where one of them is `-` or there is none."""
    for text in given or ["-"]:
        if text == "-":
            yield from (line.rstrip("\r\n") for line in sys.stdin or ())
        else:
            yield text


def ask(
    options: argparse.Namespace,
    items: Iterable[Item],
    of_app: Callable[[Client, list[Item]], Iterable[Line]],
    of_engine: Callable[[Engine, list[Item]], Iterable[Line]],
    size: int | None = None,
) -> int:
    """Print what is answered for `items`, `size` or BATCH of them at a time, and return the exit status."""
    client = access.running()
    if client is not None:
        for batch in _batched(items, size or BATCH):
            _show(of_app(client, batch))
        return 0
    from engine.engine import Engine

    engine = Engine(access.settings(options.config).read())
    engine.events.subscribe(_tell)
    try:
        for batch in _batched(items, size or BATCH):
            _show(of_engine(engine, batch))
    finally:
        if not engine.close(timeout=1.0):
            # Ctrl-C during a load, which cannot be interrupted; ending the interpreter under it would crash.
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
    """Say how far a download is, to a person who waits for it."""
    if isinstance(event, Downloading) and sys.stderr is not None and sys.stderr.isatty():
        print(f"pilotlight: {event.name}: {words.download(event.download)}", file=sys.stderr)

"""`pilotlight rerank`: the relevance of texts to a query, best first."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from engine import InvalidInput
from tray.cli import asking
from tray.cli.access import Commands
from tray.cli.asking import Line

if TYPE_CHECKING:
    from engine import EngineInterface
    from engine.client.client import Client


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    rerank = commands.add_parser("rerank", help="print texts by their relevance to a query, as JSON lines")
    asking.add_options(rerank)
    rerank.add_argument("query", metavar="QUERY", help="what is looked for")
    asking.add_texts(rerank)
    rerank.set_defaults(run=_rerank)


def _rerank(options: argparse.Namespace) -> int:
    every = list(asking.texts_of(options.texts))
    if len(every) > asking.MOST:
        # Several requests would each have an order of their own.
        raise InvalidInput(f"{len(every)} texts are too many to be compared; {asking.MOST} is the most.")

    def of_app(client: Client, texts: list[str]) -> Iterator[Line]:
        found = client.encode("rerank", query=options.query, texts=texts, model=options.encoder)
        return _by_relevance(texts, found["scores"])

    def of_engine(engine: EngineInterface, texts: list[str]) -> Iterator[Line]:
        return _by_relevance(texts, engine.rerank(options.encoder).score(options.query, texts).tolist())

    return asking.ask(options, every, of_app, of_engine, asking.MOST)


def _by_relevance(texts: list[str], scores: Sequence[float]) -> Iterator[Line]:
    for index in sorted(range(len(texts)), key=lambda index: -scores[index]):
        yield {"index": index, "score": scores[index], "text": texts[index]}

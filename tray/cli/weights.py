"""`pilotlight sparse` and `axes`: a text as weights of tokens, or along directions with names."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from engine import EncodeAxes
from tray.cli import asking
from tray.cli.access import Commands
from tray.cli.asking import Line

if TYPE_CHECKING:
    from engine import EngineInterface
    from engine.client.client import Client


def add_to(commands: Commands) -> None:
    """Add the commands to the parser."""
    sparse = commands.add_parser("sparse", help="print the weighted tokens of each text, as JSON lines")
    sparse.add_argument("--top", type=int, default=128, metavar="K", help="the heaviest of them (default: 128)")
    axes = commands.add_parser("axes", help="print the strongest axes of each text, as JSON lines")
    axes.add_argument("--top", type=int, default=5, metavar="K", help="how many of them (default: 5)")
    for parser, run in ((sparse, _sparse), (axes, _axes)):
        asking.add_options(parser)
        asking.add_texts(parser)
        parser.set_defaults(run=run)


def _sparse(options: argparse.Namespace) -> int:
    def of_app(client: Client, texts: list[str]) -> Iterator[Line]:
        found = client.encode("sparse", texts=texts, model=options.encoder, top_k=options.top)
        return _lines(texts, found["sparse"])

    def of_engine(engine: EngineInterface, texts: list[str]) -> Iterator[Line]:
        found = engine.sparse(options.encoder).encode(texts, top_k=options.top)
        return _lines(texts, [vector.by_token() for vector in found])

    return asking.ask(options, asking.texts_of(options.texts), of_app, of_engine)


def _axes(options: argparse.Namespace) -> int:
    def of_app(client: Client, texts: list[str]) -> Iterator[Line]:
        found = client.encode("axes", texts=texts, model=options.encoder, top_k=options.top)["signatures"]
        return _lines(texts, [{one["axis"]: one["weight"] for one in signature} for signature in found])

    def of_engine(engine: EngineInterface, texts: list[str]) -> Iterator[Line]:
        projection = engine.ask(options.encoder, EncodeAxes(texts, top_k=options.top)).result().value
        return _lines(texts, [dict(signature) for signature in projection.signatures(options.top)])

    return asking.ask(options, asking.texts_of(options.texts), of_app, of_engine)


def _lines(texts: Sequence[str], weights: Sequence[Mapping[str, float]]) -> Iterator[Line]:
    for text, found in zip(texts, weights, strict=True):
        yield {"text": text, "weights": dict(found)}

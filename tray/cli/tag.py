"""`pilotlight tag`: the tokens and entities of each text."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tray.cli import asking
from tray.cli.access import Commands
from tray.cli.asking import Line

if TYPE_CHECKING:
    from engine import EngineInterface
    from engine.client.client import Client


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    tag = commands.add_parser("tag", help="print the tokens and entities of each text, as JSON lines")
    asking.add_options(tag)
    asking.add_texts(tag)
    tag.set_defaults(run=_tag)


def _tag(options: argparse.Namespace) -> int:
    def of_app(client: Client, texts: list[str]) -> Iterator[Line]:
        return _lines(texts, client.encode("tag", texts=texts, model=options.encoder)["docs"])

    def of_engine(engine: EngineInterface, texts: list[str]) -> Iterator[Line]:
        return _lines(texts, [asdict(doc, dict_factory=_known) for doc in engine.tag(options.encoder).tag(texts)])

    return asking.ask(options, asking.texts_of(options.texts), of_app, of_engine)


def _lines(texts: list[str], docs: list[dict[str, Any]]) -> Iterator[Line]:
    for text, doc in zip(texts, docs, strict=True):
        yield {"text": text, **doc}


def _known(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields that the pipeline fills; the others are left out, as by the endpoint."""
    return {name: value for name, value in fields if value is not None}

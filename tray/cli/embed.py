"""`pilotlight embed` and `embed-image`: one vector per text or picture."""

from __future__ import annotations

import argparse
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engine import InvalidInput
from tray.cli import asking
from tray.cli.access import Commands
from tray.cli.asking import Line

if TYPE_CHECKING:
    from engine import EngineInterface
    from engine.client.client import Client

_PICTURES: Final = 16
"""Pictures in one batch."""
_REQUEST_BYTES: Final = 20 << 20
"""Bytes of all pictures in one request; the endpoint takes 32 MiB, and base64 makes 4 bytes of 3."""


def add_to(commands: Commands) -> None:
    """Add the commands to the parser."""
    embed = commands.add_parser("embed", help="print one vector per text, as JSON lines")
    embed.add_argument("--task", choices=["query", "passage"], help="for models with a prompt for each")
    embed.add_argument("--normalize", action="store_true", help="bring each vector to length 1")
    asking.add_options(embed)
    asking.add_texts(embed)
    embed.set_defaults(run=_embed)

    pictures = commands.add_parser("embed-image", help="print one vector per picture, as JSON lines")
    asking.add_options(pictures)
    pictures.add_argument("files", nargs="+", type=Path, metavar="FILE", help="pictures")
    pictures.set_defaults(run=_embed_image)


def _embed(options: argparse.Namespace) -> int:
    def of_app(client: Client, texts: list[str]) -> Iterator[Line]:
        found = client.encode(
            "dense", texts=texts, model=options.encoder, task=options.task, normalize=options.normalize
        )
        return _vectors("text", texts, found["vectors"])

    def of_engine(engine: EngineInterface, texts: list[str]) -> Iterator[Line]:
        vectors = engine.dense(options.encoder).encode(texts, task=options.task, normalize=options.normalize)
        return _vectors("text", texts, vectors.tolist())

    return asking.ask(options, asking.texts_of(options.texts), of_app, of_engine)


def _embed_image(options: argparse.Namespace) -> int:
    def of_app(client: Client, files: list[Path]) -> Iterator[Line]:
        for some, pictures in _within_a_request(files):
            encoded = [base64.b64encode(picture).decode() for picture in pictures]
            found = client.encode("image", images=encoded, model=options.encoder)
            yield from _vectors("image", some, found["vectors"])

    def of_engine(engine: EngineInterface, files: list[Path]) -> Iterator[Line]:
        vectors = engine.image_text(options.encoder).encode_images([_read(file) for file in files])
        return _vectors("image", list(map(str, files)), vectors.tolist())

    return asking.ask(options, options.files, of_app, of_engine, _PICTURES)


def _within_a_request(files: list[Path]) -> Iterator[tuple[list[str], list[bytes]]]:
    """Return the names and contents of as many files at a time as fit into one request, at least of one."""
    names: list[str] = []
    pictures: list[bytes] = []
    for file in files:
        picture = _read(file)
        if pictures and sum(map(len, pictures)) + len(picture) > _REQUEST_BYTES:
            yield names, pictures
            names, pictures = [], []
        names.append(str(file))
        pictures.append(picture)
    yield names, pictures


def _vectors(what: str, items: list[str], vectors: list[list[float]]) -> Iterator[Line]:
    for item, vector in zip(items, vectors, strict=True):
        yield {what: item, "embedding": vector}


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{file} could not be read: {error.strerror or error}.") from error

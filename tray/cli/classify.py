"""`pilotlight classify`: the probabilities of labels for each text, or the values of a regression."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tray.cli import asking
from tray.cli.access import Commands
from tray.cli.asking import Line

if TYPE_CHECKING:
    from engine import EngineInterface
    from engine.client.client import Client


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    classify = commands.add_parser("classify", help="print how probable each label is for each text, as JSON lines")
    other = classify.add_mutually_exclusive_group()
    other.add_argument("--hypothesis", metavar="TEXT", help="judge each text together with this one (NLI)")
    other.add_argument("--label", action="append", metavar="LABEL", help="choose from labels of your own (NLI models)")
    asking.add_options(classify)
    asking.add_texts(classify)
    classify.set_defaults(run=_classify)


def _classify(options: argparse.Namespace) -> int:
    def of_app(client: Client, texts: list[str]) -> Iterator[Line]:
        fields: dict[str, Any] = {"texts": texts, "candidate_labels": options.label}
        if options.hypothesis is not None:
            fields = {"pairs": _pairs(texts, options.hypothesis)}
        found = client.encode("classify", model=options.encoder, **fields)
        what = "values" if "values" in found else "labels"
        return _lines(what, texts, found[what])

    def of_engine(engine: EngineInterface, texts: list[str]) -> Iterator[Line]:
        encoder = engine.classify(options.encoder)
        if options.label is not None:
            found = encoder.zero_shot(texts, options.label)
        elif options.hypothesis is not None:
            found = encoder.classify(_pairs(texts, options.hypothesis))
        else:
            found = encoder.classify(texts)
        what, rows = ("values", found.logits) if found.probabilities is None else ("labels", found.probabilities)
        return _lines(what, texts, [dict(zip(found.labels, row, strict=True)) for row in rows.tolist()])

    # Each text counts once per label.
    size = max(1, min(asking.BATCH, asking.MOST // len(options.label or [""])))
    return asking.ask(options, asking.texts_of(options.texts), of_app, of_engine, size)


def _pairs(texts: Sequence[str], hypothesis: str) -> list[tuple[str, str]]:
    return [(text, hypothesis) for text in texts]


def _lines(what: str, texts: Sequence[str], rows: Sequence[dict[str, float]]) -> Iterator[Line]:
    """One line per text: by label the probabilities of a classifier, `labels`, or the `values` of a regression."""
    for text, found in zip(texts, rows, strict=True):
        yield {"text": text, what: dict(sorted(found.items(), key=lambda pair: -pair[1]))}

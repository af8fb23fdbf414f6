"""`pilotlight add`: a new encoder, checked and written to the settings file."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any

from engine import EncoderConfig
from tray.cli import access, known
from tray.cli.access import Commands


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    add = commands.add_parser(
        "add",
        help="write a new encoder to the settings file",
        description="Write a new encoder to the settings file. `pilotlight encoders --known` lists well-known models.",
    )
    add.add_argument("name", metavar="NAME", help='what apps will send as "model"')
    add.add_argument(
        "kind", metavar="KIND", help="dense, sparse, multi, rerank, classify, image_text, tag, axes, plugin"
    )
    add.add_argument(
        "model", metavar="MODEL", help="hub id, folder, pipeline, plug-in; for axes the encoder they stand on"
    )
    add.add_argument("--alias", action="append", default=[], metavar="A", help="another name for requests")
    add.add_argument("--default", action="store_true", help="serve requests of its kind that name no model")
    add.add_argument("--device", metavar="D", help="auto, cpu, cuda, cuda:N, mps; without it that of [hardware]")
    add.add_argument("--dtype", metavar="T", help="auto, float32, float16, bfloat16")
    access.add_config(add, "settings file")
    add.set_defaults(run=_add)


def _add(options: argparse.Namespace) -> int:
    client = access.running()
    in_force = None if client is None else client.settings_file()
    settings = access.settings(options.config or in_force)
    settings.read()  # reports a mistake in the file; `open` would only log it
    settings.open()
    config = settings.add(options.name, _table(options))
    encoder = next(one for one in config.encoders if one.name == options.name)
    print(f"Added {encoder.name} ({encoder.kind}) to {settings.path}.")
    for line in _next(encoder):
        print(line)
    if client is None:
        print("Pilotlight is not running; it knows the encoder from its next start.")
    elif in_force is not None and in_force.resolve() == settings.path.resolve():
        print("The running Pilotlight knows it within a second.")
    else:
        print("The running Pilotlight goes by another settings file.")
    return 0


def _table(options: argparse.Namespace) -> dict[str, Any]:
    table: dict[str, Any] = {"kind": options.kind}
    table["base" if options.kind == "axes" else "model"] = _absolute(options.model)
    if options.alias:
        table["aliases"] = options.alias
    if options.default:
        table["default"] = True
    optional = {"device": options.device, "dtype": options.dtype}
    return table | {key: value for key, value in optional.items() if value is not None}


def _absolute(model: str) -> str:
    """Return a relative folder as an absolute one, as Pilotlight runs in another folder."""
    return os.path.abspath(model) if model.startswith(".") else model  # noqa: PTH100 - resolves no link


def _next(encoder: EncoderConfig) -> Iterator[str]:
    """Return the facts and steps that the user needs before the first use."""
    from engine import missing

    reason = missing(encoder)
    if reason is not None:
        yield f"It cannot be used yet. {reason}"
    model = known.find(encoder.kind, encoder.model)
    if model is not None:
        yield f"{model.model}: {model.about}."
    if encoder.kind not in ("tag", "axes", "plugin") and not encoder.model.startswith(("builtin:", "/", "~", "\\")):
        yield "Its files are downloaded at its first use and kept in the hub's cache, unless they are there already."

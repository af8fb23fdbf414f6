"""`pilotlight load`, `offload`, `unload` and `quit`: orders to the running Pilotlight."""

from __future__ import annotations

import argparse

from tray import words
from tray.cli import access
from tray.cli.access import Commands

_VERBS = (("load", "to its device"), ("offload", "off its device"), ("unload", "out of memory"))


def add_to(commands: Commands) -> None:
    """Add the commands to the parser."""
    for verb, where in _VERBS:
        control = commands.add_parser(verb, help=f"bring an encoder {where}")
        which = control.add_mutually_exclusive_group(required=True)
        which.add_argument("name", nargs="?", metavar="NAME", help="the encoder, or one of its parts")
        which.add_argument("--all", action="store_true", help="every encoder")
        control.set_defaults(run=_control, verb=verb)
    commands.add_parser("quit", help="end the running Pilotlight").set_defaults(run=_quit)


def _control(options: argparse.Namespace) -> int:
    client = access.required()
    if options.all:
        outcomes = client.post(f"/admin/{options.verb}")["results"]
    else:
        outcomes = [client.control(options.name, options.verb)]
    for outcome in outcomes:
        because = f": {outcome['reason']}" if outcome["reason"] else ""
        freed = words.known_size(outcome["freed_bytes"])
        print(f"{outcome['name']}: {outcome['result']}, {outcome['state']}, freed {freed}{because}")
    return 0 if all(outcome["result"] == "done" for outcome in outcomes) else 1


def _quit(options: argparse.Namespace) -> int:
    client = access.running()
    if client is None:
        print("Pilotlight is not running.")
        return 0
    client.post("/admin/quit")
    return 0

"""`pilotlight encoders`: which encoders are configured, and how each stands."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

from engine.config import Config, EncoderConfig
from tray import words
from tray.command_line import access, known
from tray.command_line.access import Commands

_HEAD = ("NAME", "KIND", "MODEL", "STATE", "SIZE", "DEVICE")


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    encoders = commands.add_parser("encoders", help="which encoders are configured, and how each stands")
    encoders.add_argument("--json", action="store_true", help="as one JSON object")
    encoders.add_argument("--known", action="store_true", help="well-known models of each kind, to add")
    access.add_config(encoders)
    encoders.set_defaults(run=_encoders)


def _encoders(options: argparse.Namespace) -> int:
    if options.known:
        return known.show(options.json)
    client = access.running()
    if client is not None:
        entries = entries_of(client.get("/admin/components")["components"])
    else:
        entries = entries_in(access.settings(options.config).read())
    if options.json:
        print(json.dumps({"running": client is not None, "encoders": entries}, indent=2))
        return 0
    for line in lines(entries):
        print(line)
    if client is None:
        print("Pilotlight is not running: this is what its settings say.")
    return 0


def entries_of(components: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry per encoder from what `/admin/components` answers: the parts of one are within it."""
    entries: dict[str, dict[str, Any]] = {}
    for component in components:
        part = _part_of(component)
        if part is None:
            entries[component["name"]] = {**_named(component), **_standing(component), "parts": []}
            continue
        name = component["name"].removesuffix(f".{part}")
        aliases = [alias.removesuffix(f".{part}") for alias in component["aliases"]]
        whole = _named({**component, "name": name, "aliases": aliases})
        entry = entries.setdefault(name, {**whole, **_standing({}), "parts": []})
        entry["parts"].append({"name": component["name"], **_standing(component)})
    return list(entries.values())


def entries_in(config: Config) -> list[dict[str, Any]]:
    """Return the same from settings alone; how an encoder stands nobody knows then."""
    configured = [component for encoder in config.encoders for component in encoder.components]
    return entries_of(
        [{"name": one.name, "kind": one.kind, "model": one.model, "aliases": list(one.aliases)} for one in configured]
    )


def lines(entries: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Return the entries as a table, each part below what it is a part of."""
    if not entries:
        yield "No encoder is configured. Add one: pilotlight add NAME KIND MODEL"
        return
    rows = [_HEAD]
    for entry in entries:
        rows.append((entry["name"], entry["kind"], entry["model"], *_shown(entry)))
        rows += [(f"  {part['name']}", "", "", *_shown(part)) for part in entry["parts"]]
    yield from words.aligned(rows)


def _named(component: dict[str, Any]) -> dict[str, Any]:
    return {key: component[key] for key in ("name", "kind", "model", "aliases")}


def _standing(component: dict[str, Any]) -> dict[str, Any]:
    return {key: component.get(key) for key in ("state", "status", "bytes_total", "device")}


def _shown(entry: dict[str, Any]) -> tuple[str, str, str]:
    size = "" if entry["bytes_total"] is None else words.size(entry["bytes_total"])
    return entry["status"] or "", size, entry["device"] or ""


def _part_of(component: dict[str, Any]) -> str | None:
    """Which part of its encoder a component is, None for a whole one."""
    whole = EncoderConfig(name="", kind=component["kind"], model=component["model"])
    parts = (part.part for part in whole.components if part.part is not None)
    return next((part for part in parts if component["name"].endswith(f".{part}")), None)

"""`pilotlight encoders`: the configured encoders and their states."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

from engine import Config, EncoderConfig
from tray import words
from tray.cli import access, known
from tray.cli.access import Commands

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
    problem = None
    if client is not None:
        problem = client.settings_problem()
        entries = entries_of(client.get("/admin/components")["components"])
    else:
        entries = entries_in(access.settings(options.config).read())
    if options.json:
        found = {"running": client is not None, "settings_problem": problem, "encoders": entries}
        print(json.dumps(found, indent=2))
        return 0
    for line in lines(entries):
        print(line)
    if client is None:
        print("Pilotlight is not running: this is what its settings say.")
    for line in access.not_in_force(problem):
        print(line)
    return 0


def entries_of(components: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry per encoder, which holds those of its parts, from the answer of `/admin/components`."""
    entries: dict[str, dict[str, Any]] = {}
    for component in components:
        name, part = component["encoder"], component["part"]
        if part is None:
            entries[name] = {**_named(component), **_state_of(component), "parts": []}
            continue
        aliases = [alias.removesuffix(f".{part}") for alias in component["aliases"]]
        whole = _named({**component, "name": name, "aliases": aliases})
        entry = entries.setdefault(name, {**whole, **_state_of({}), "parts": []})
        entry["parts"].append({"name": component["name"], **_state_of(component)})
    return list(entries.values())


def entries_in(config: Config) -> list[dict[str, Any]]:
    """Return the same from the settings alone, with unknown states."""
    return entries_of([_configured(encoder, one) for encoder in config.encoders for one in encoder.components])


def lines(entries: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Return the entries as a table, each part below its encoder."""
    if not entries:
        yield "No encoder is configured. Add one: pilotlight add NAME KIND MODEL"
        return
    rows = [_HEAD]
    for entry in entries:
        rows.append((entry["name"], entry["kind"], entry["model"], *_shown(entry)))
        rows += [(f"  {part['name']}", "", "", *_shown(part)) for part in entry["parts"]]
    yield from words.aligned(rows)


def _configured(encoder: EncoderConfig, component: EncoderConfig) -> dict[str, Any]:
    own = {"name": component.name, "encoder": encoder.name, "part": component.part}
    return {**own, "kind": component.kind, "model": component.model, "aliases": list(component.aliases)}


def _named(component: dict[str, Any]) -> dict[str, Any]:
    return {key: component[key] for key in ("name", "kind", "model", "aliases")}


def _state_of(component: dict[str, Any]) -> dict[str, Any]:
    return {key: component.get(key) for key in ("state", "status", "bytes_total", "device")}


def _shown(entry: dict[str, Any]) -> tuple[str, str, str]:
    size = "" if entry["bytes_total"] is None else words.size(entry["bytes_total"])
    return entry["status"] or "", size, entry["device"] or ""

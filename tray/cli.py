"""The command `pilotlight`."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.errors import PilotlightError
from tray import words

if TYPE_CHECKING:
    from engine.client import Client
    from engine.configfile import SettingsFile

_BATCH: Final = 256
_TIMINGS: Final = {"load_seconds": "loaded in", "reload_seconds": "back in", "offload_seconds": "stepped down in"}
_VRAM: Final = {"ours": "allocated_vram", "context": "context_bytes", "others": "others_vram", "free": "vram_free"}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, 1 for a failure, 2 for wrong use."""
    options = _parser().parse_args(_with_command(sys.argv[1:] if arguments is None else arguments))
    try:
        status: int = options.run(options)
    except PilotlightError as error:
        print(f"pilotlight: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of our output is gone, `| head` for one; that is no failure of ours.
        sys.stderr.close()
        return 0
    except OSError as error:
        print(f"pilotlight: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pilotlight", description="One engine for all encoders on this computer.")
    parser.add_argument("--version", action="version", version=f"pilotlight {metadata.version('pilotlight')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="start Pilotlight (what happens without a command)")
    run.add_argument("--headless", action="store_true", help="no tray icon")
    run.add_argument("--host", type=_host, help="address to listen on, over the settings")
    run.add_argument("--port", type=_port, help="port to listen on, over the settings; 0 = any free one")
    run.add_argument("--config", type=Path, metavar="FILE", help="settings file")
    run.set_defaults(run=_run)

    status = commands.add_parser("status", help="what runs, and what memory it holds")
    status.add_argument("--json", action="store_true", help="as one JSON object")
    status.set_defaults(run=_status)

    embed = commands.add_parser("embed", help="print one vector per text, as JSON lines")
    embed.add_argument("--encoder", metavar="NAME", help="which encoder; without it the default one")
    embed.add_argument("--config", type=Path, metavar="FILE", help="settings file, when nothing runs")
    embed.add_argument("texts", nargs="*", metavar="TEXT", help="texts; - reads one per line from standard input")
    embed.set_defaults(run=_embed)

    for verb, where in (("load", "to its device"), ("offload", "off its device"), ("unload", "out of memory")):
        control = commands.add_parser(verb, help=f"bring an encoder {where}")
        which = control.add_mutually_exclusive_group(required=True)
        which.add_argument("name", nargs="?", metavar="NAME", help="the encoder")
        which.add_argument("--all", action="store_true", help="every encoder")
        control.set_defaults(run=_control, verb=verb)

    commands.add_parser("quit", help="end the running Pilotlight").set_defaults(run=_quit)

    config = commands.add_parser("config", help="where the settings are, and what they say")
    config.add_argument("what", choices=["path", "show"])
    config.add_argument("--config", type=Path, metavar="FILE", help="settings file")
    config.set_defaults(run=_config)
    return parser


def _with_command(arguments: list[str]) -> list[str]:
    """`pilotlight --headless` means `pilotlight run --headless`."""
    first = arguments[0] if arguments else ""
    ours = first in ("-h", "--help", "--version")
    return ["run", *arguments] if not first or (first.startswith("-") and not ours) else arguments


def _host(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("an address must not be empty")
    return text


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > 65535:
        raise argparse.ArgumentTypeError("a port is a whole number from 0 to 65535")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    from engine.service import Options
    from tray import app

    return app.run(Options(options.host, options.port, options.config), headless=options.headless)


def _running() -> Client | None:
    from engine.client import Client
    from engine.http import discovery

    found = discovery.find()
    return None if found is None else Client(found)


def _required() -> Client:
    client = _running()
    if client is None:
        raise PilotlightError("Pilotlight is not running.", next_step="Start it with: pilotlight")
    return client


def _status(options: argparse.Namespace) -> int:
    client = _running()
    if client is None:
        print(json.dumps({"running": False}) if options.json else "Pilotlight is not running.")
        return 1
    found = {"running": True, **client.get("/health"), **client.get("/admin/components")}
    found["memory"] = client.get("/admin/memory")
    print(json.dumps(found, indent=2) if options.json else "\n".join(_status_lines(found, client.url)))
    return 0


def _status_lines(found: dict[str, Any], url: str) -> Iterator[str]:
    yield f"Pilotlight {found['version']} at {url} (process {found['pid']})"
    yield f"RSS {words.size(found['memory']['process']['rss'])}"
    for device in found["memory"]["devices"]:
        yield f"VRAM of {_gpu(device)}: {', '.join(_vram(device))}"
    for component in found["components"]:
        yield f"{component['name']} ({component['kind']}): {', '.join(_facts(component))}"


def _gpu(device: dict[str, Any]) -> str:
    """A GPU by its number, as two may have one name, and by its name, where it has another."""
    number = f"GPU {device['index']}"
    return number if device["name"] == number else f"{number} ({device['name']})"


def _vram(device: dict[str, Any]) -> Iterator[str]:
    """What is used of one GPU and by whom; unlike an encoder's facts, what is unknown is said to be."""
    if device["shares_ram"]:
        yield "the GPU shares the system's memory"
    else:
        yield f"{words.known_size(device['vram_used'])} of {words.known_size(device['vram_total'])}"
    for what, key in _VRAM.items():
        yield f"{what} {words.known_size(device[key])}"


def _facts(component: dict[str, Any]) -> Iterator[str]:
    """What is known of one encoder, in words; what is unknown is left out."""
    yield component["status"]
    parts = (component["bytes_on_device"], component["bytes_in_ram"])
    resident = None if None in parts else sum(parts)
    if resident is not None and (resident or component["bytes_total"]):
        where = f" on {component['device']}" if component["bytes_on_device"] else ""
        yield words.share(resident, component["bytes_total"]) + where
    for key, what in _TIMINGS.items():
        if component[key] is not None:
            because = component["stepped_down_because"] if key == "offload_seconds" else None
            yield f"{what} {words.duration(component[key])}" + (f" ({because})" if because else "")
    kept, down = component["keep_alive_seconds"], component["steps_down_in_seconds"]
    if component["pinned"]:
        yield "pinned"
    elif kept is not None:
        yield _kept(kept)
    if down is not None:
        yield f"{'unloads' if component['state'] == 'in_ram' or kept == 0 else 'steps down'} in {words.countdown(down)}"
    if component["error"]:
        yield component["error"]["message"]
    if component["note"]:
        yield component["note"]
    for option in component["ignored_options"]:
        yield f"without effect: {option}"


def _kept(seconds: float) -> str:
    """What the last `keep_alive` asked for."""
    if seconds < 0:
        return "keep_alive: stays"
    return f"keep_alive {words.timeout(seconds)}" if seconds else "keep_alive 0: unloads after use"


def _embed(options: argparse.Namespace) -> int:
    texts = _texts(options.texts)
    client = _running()
    if client is not None:
        for batch in _batched(texts):
            _print_vectors(batch, client.embed(batch, options.encoder))
        return 0
    from engine.engine import Engine

    engine = Engine(_settings(options.config).read())
    try:
        encoder = engine.dense(options.encoder)
        for batch in _batched(texts):
            _print_vectors(batch, encoder.encode(batch).tolist())
    finally:
        if not engine.close(timeout=1.0):
            # Ctrl-C during a load, which cannot be interrupted; ending the interpreter under it would crash.
            os._exit(130)
    return 0


def _texts(given: list[str]) -> Iterator[str]:
    """The texts of the command line, with standard input's lines where one of them is `-` or there is none."""
    for text in given or ["-"]:
        if text == "-":
            yield from (line.rstrip("\r\n") for line in sys.stdin or ())
        else:
            yield text


def _batched(texts: Iterable[str]) -> Iterator[list[str]]:
    texts = iter(texts)
    while batch := list(itertools.islice(texts, _BATCH)):
        yield batch


def _print_vectors(texts: list[str], vectors: list[list[float]]) -> None:
    for text, vector in zip(texts, vectors, strict=True):
        print(json.dumps({"text": text, "embedding": vector}), flush=True)


def _control(options: argparse.Namespace) -> int:
    client = _required()
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
    client = _running()
    if client is None:
        print("Pilotlight is not running.")
        return 0
    client.post("/admin/quit")
    return 0


def _config(options: argparse.Namespace) -> int:
    settings = _settings(options.config)
    if options.what == "path":
        print(settings.path)
        return 0
    import tomlkit

    print(tomlkit.dumps(settings.read().as_mapping()), end="")
    return 0


def _settings(path: Path | None) -> SettingsFile:
    from engine import paths
    from engine.configfile import SettingsFile

    return SettingsFile(path or paths.settings_file())


if __name__ == "__main__":
    sys.exit(main())

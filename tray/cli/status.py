"""`pilotlight status`: the running Pilotlight, its encoders and their memory."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any, Final

from engine.state import Download
from tray import words
from tray.cli import access
from tray.cli.access import Commands

_TIMINGS: Final = {"load_seconds": "loaded in", "reload_seconds": "back in", "offload_seconds": "stepped down in"}
_VRAM: Final = {"ours": "allocated_vram", "context": "context_bytes", "others": "others_vram", "free": "vram_free"}


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    status = commands.add_parser("status", help="what runs, and what memory it holds")
    status.add_argument("--json", action="store_true", help="as one JSON object")
    status.set_defaults(run=_status)


def _status(options: argparse.Namespace) -> int:
    client = access.running()
    if client is None:
        print(json.dumps({"running": False}) if options.json else "Pilotlight is not running.")
        return 1
    found = {"running": True, **client.get("/health"), **client.get("/admin/components")}
    found["memory"] = client.get("/admin/memory")
    found["settings_problem"] = client.settings_problem()
    print(json.dumps(found, indent=2) if options.json else "\n".join(lines(found, client.url)))
    return 0


def lines(found: dict[str, Any], url: str) -> Iterator[str]:
    """Return the answers of the status routes, in words."""
    yield f"Pilotlight {found['version']} at {url} (process {found['pid']})"
    yield from access.not_in_force(found["settings_problem"])
    yield f"RSS {words.size(found['memory']['process']['rss'])}"
    for device in found["memory"]["devices"]:
        yield f"VRAM of {_gpu(device)}: {', '.join(_vram(device))}"
    for component in found["components"]:
        yield f"{component['name']} ({component['kind']}): {', '.join(facts(component))}"


def _gpu(device: dict[str, Any]) -> str:
    """Return a GPU's number, and its name if that says more; two GPUs may have one name."""
    number = f"GPU {device['index']}"
    return number if device["name"] == number else f"{number} ({device['name']})"


def _vram(device: dict[str, Any]) -> Iterator[str]:
    """Return the memory of one GPU and its users; unlike for an encoder, unknown figures are shown as unknown."""
    if device["shares_ram"]:
        yield "the GPU shares the system's memory"
    else:
        yield f"{words.known_size(device['vram_used'])} of {words.known_size(device['vram_total'])}"
    for what, key in _VRAM.items():
        yield f"{what} {words.known_size(device[key])}"


def facts(component: dict[str, Any]) -> Iterator[str]:
    """Return the known facts about one encoder or part, in words; unknown ones are left out."""
    fetching = component["download"]
    if fetching is None:
        yield component["status"]
    else:
        yield words.download(Download(fetching["bytes_done"], fetching["bytes_total"]))
    parts = (component["bytes_on_device"], component["bytes_in_ram"])
    resident = None if None in parts else sum(parts)
    if resident is not None and (resident or component["bytes_total"]):
        where = f" on {component['device']}" if component["bytes_on_device"] else ""
        yield words.share(resident, component["bytes_total"]) + where
    if component["shared_with"]:
        yield f"shared with {' and '.join(component['shared_with'])}"
    for key, what in _TIMINGS.items():
        if component[key] is not None:
            because = component["stepped_down_because"] if key == "offload_seconds" else None
            yield f"{what} {words.duration(component[key])}" + (f" ({because})" if because else "")
    yield from _timer(component)
    if component["error"]:
        yield " ".join(filter(None, (component["error"]["message"], component["error"]["next_step"])))
    if component["note"]:
        yield component["note"]
    for option in component["ignored_options"]:
        yield f"without effect: {option}"


def _timer(component: dict[str, Any]) -> Iterator[str]:
    """Return why the encoder stays, and when it steps down."""
    kept, down = component["keep_alive_seconds"], component["steps_down_in_seconds"]
    if component["pinned"]:
        yield "pinned"
    elif kept is not None:
        yield _kept(kept)
    if down is not None:
        yield f"{'unloads' if component['state'] == 'in_ram' or kept == 0 else 'steps down'} in {words.countdown(down)}"


def _kept(seconds: float) -> str:
    """Return the effect of the last `keep_alive`, in words."""
    if seconds < 0:
        return "keep_alive: stays"
    return f"keep_alive {words.timeout(seconds)}" if seconds else "keep_alive 0: unloads after use"

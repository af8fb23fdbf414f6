"""The two sources of a command's answer: the running Pilotlight, or the settings file."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import PilotlightError

if TYPE_CHECKING:
    from engine.client.client import Client
    from engine.settings.file import SettingsFile

Commands = Any
"""The type of `ArgumentParser.add_subparsers(...)`, for which argparse has no public name."""


def running() -> Client | None:
    """Return a client of the running Pilotlight, None if none runs."""
    from engine import discovery
    from engine.client.client import Client

    found = discovery.find()
    return None if found is None else Client(found)


def required() -> Client:
    """Return a client of the running Pilotlight; raises PilotlightError if none runs."""
    client = running()
    if client is None:
        raise PilotlightError("Pilotlight is not running.", next_step="Start it with: pilotlight")
    return client


def settings(path: Path | None) -> SettingsFile:
    """Return the settings file at `path`, or the usual one for None."""
    from engine import paths
    from engine.settings.file import SettingsFile

    return SettingsFile(path or paths.settings_file())


def not_in_force(problem: str | None) -> Iterator[str]:
    """Return a line about the `problem` of the settings file, if there is one."""
    if problem is not None:
        mistake, _, others = problem.partition("\n")
        more = f" (and {len(others.splitlines())} more)" if others else ""
        yield f"The settings file is not in force: {mistake}{more}"


def add_config(parser: argparse.ArgumentParser, meaning: str = "settings file, when nothing runs") -> None:
    """Give a command the option `--config FILE`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help=meaning)

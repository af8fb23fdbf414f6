"""`pilotlight config`: the path of the settings file, and its content."""

from __future__ import annotations

import argparse

from tray.cli import access
from tray.cli.access import Commands


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    config = commands.add_parser("config", help="where the settings are, and what they say")
    config.add_argument("what", choices=["path", "show"])
    access.add_config(config, "settings file")
    config.set_defaults(run=_config)


def _config(options: argparse.Namespace) -> int:
    settings = access.settings(options.config)
    if options.what == "path":
        print(settings.path)
        return 0
    import tomlkit

    print(tomlkit.dumps(settings.read().as_mapping()), end="")
    return 0

"""`pilotlight run`: the program itself."""

from __future__ import annotations

import argparse

from tray.cli.access import Commands, add_config


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    run = commands.add_parser("run", help="start Pilotlight (what happens without a command)")
    run.add_argument("--headless", action="store_true", help="no tray icon")
    run.add_argument("--host", type=_host, help="address to listen on, over the settings")
    run.add_argument("--port", type=_port, help="port to listen on, over the settings; 0 = any free one")
    add_config(run, "settings file")
    run.set_defaults(run=_run)


def _host(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("an address must not be empty")
    return text


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > 65535:
        raise argparse.ArgumentTypeError("a port is a whole number from 0 to 65535")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    from engine.service.service import Options
    from tray import app

    return app.run(Options(options.host, options.port, options.config), headless=options.headless)

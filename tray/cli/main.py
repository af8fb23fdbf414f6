"""The command `pilotlight`."""

from __future__ import annotations

import argparse
import sys
from importlib import metadata

from engine.errors import PilotlightError
from engine.service.packaged import freeze_support
from tray.cli import add, classify, config, control, embed, encoders, rerank, run, status, tag, weights


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, 1 for a failure, 2 for wrong use."""
    freeze_support()
    options = _parser().parse_args(_with_command(sys.argv[1:] if arguments is None else arguments))
    try:
        code: int = options.run(options)
    except PilotlightError as error:
        print(f"pilotlight: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of the output has ended, such as `| head`; that is no failure.
        sys.stderr.close()
        return 0
    except OSError as error:
        print(f"pilotlight: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pilotlight", description="One engine for all encoders on this computer.")
    parser.add_argument("--version", action="version", version=f"pilotlight {metadata.version('pilotlight')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for noun in (run, status, encoders, add, embed, rerank, classify, tag, weights, control, config):
        noun.add_to(commands)
    return parser


def _with_command(arguments: list[str]) -> list[str]:
    """Return `arguments` with the command `run` if they name none, as in `pilotlight --headless`."""
    first = arguments[0] if arguments else ""
    ours = first in ("-h", "--help", "--version")
    return ["run", *arguments] if not first or (first.startswith("-") and not ours) else arguments

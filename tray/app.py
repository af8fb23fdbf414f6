"""The program: the engine's service, with or without a tray icon."""

from __future__ import annotations

import logging

from engine.service import service
from engine.service.service import Options, Service

_log = logging.getLogger(__name__)


def run(options: Options, *, headless: bool = False) -> int:
    """Run Pilotlight until it is told to end, and return the exit status."""
    return service.run(options, None if headless else _show)


def _show(running: Service) -> None:
    """Show the tray until a shutdown is requested; without a desktop, log the reason and wait."""
    from tray import platform

    problem = platform.tray_problem()
    if problem is not None:
        _log.warning("no tray icon: %s Running headless.", problem)
        running.stop.wait()
        return
    from tray.icon.renderer import TrayUnavailable
    from tray.tray import Tray

    tray = Tray(running.engine, running.settings, running.url, on_quit=running.stop.request)
    try:
        with running.stop.also(tray.stop):
            tray.run(on_ready=running.stop.catch_signals)
    except TrayUnavailable as error:
        _log.warning("%s Running headless.", error)
        running.stop.wait()

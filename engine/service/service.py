"""The program without its tray: settings, engine and endpoint, opened in order and closed in reverse."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from engine import discovery, paths, power
from engine.discovery import Endpoint
from engine.engine import Engine
from engine.http.app import create_app
from engine.http.security import token
from engine.http.server import Server, bind
from engine.interface import EngineInterface
from engine.service.closing import Closing
from engine.service.instance import only_instance
from engine.service.logs import logging_on
from engine.service.openmp import let_threads_sleep
from engine.service.stop import Stop
from engine.settings.file import SettingsFile

_log = logging.getLogger(__name__)

# With the tray's own limits they stay below 5 s together, also when every one of them is used up.
_REFUSE_SECONDS: Final = 0.5
_CLOSE_SERVER_SECONDS: Final = 1.5
_CLOSE_SETTINGS_SECONDS: Final = 0.5
_CLOSE_POWER_SECONDS: Final = 0.3
_CLOSE_ENGINE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command line that take precedence over the settings."""

    host: str | None = None
    port: int | None = None
    config: Path | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """The open parts of the running program."""

    engine: EngineInterface
    settings: SettingsFile
    url: str
    stop: Stop


Attend = Callable[[Service], None]


def run(options: Options, attend: Attend | None = None) -> int:
    """Run Pilotlight until it is asked to end; return the exit status.

    `attend` may show it to the user: it is called on this thread once all is open, and returns at the end.
    """
    with ExitStack() as steps:
        other = steps.enter_context(only_instance())
        if other is not None:
            place = f" at {other.url}" if other.url else ""
            print(f"Pilotlight is already running{place}.")  # noqa: T201 - the answer to a command
            return 0
        steps.enter_context(logging_on())
        # Here and not in Engine: an engine in a host's process leaves the environment alone. Before any thread starts.
        let_threads_sleep(os.environ)
        clean = _serve(options, attend or _wait)
    if not clean:
        # A model that is still loading cannot be interrupted, and ending the interpreter under it would crash.
        logging.shutdown()
        os._exit(0)
    return 0


def version() -> str:
    """Return the installed version."""
    return metadata.version("pilotlight")


def _serve(options: Options, attend: Attend) -> bool:
    """Open everything, wait for the end, close everything; return whether nothing was left at work."""
    stop = Stop()
    with Closing() as closing:
        closing.enter_context(stop.on_signals())
        settings = SettingsFile(options.config or paths.settings_file())
        config = settings.open()
        engine = Engine(config)
        closing.step("engine", engine.close, _CLOSE_ENGINE_SECONDS)
        host = options.host or config.server.host
        port = config.server.port if options.port is None else options.port
        sockets = bind(host, port)
        token_path = paths.state_folder() / "token"
        app = create_app(
            engine, host=host, token=token(token_path), version=version(), settings=settings, on_quit=stop.request
        )
        server = Server(app, sockets)
        engine.start()
        closing.step("power", power.watch(engine.suspend, engine.resume).close, _CLOSE_POWER_SECONDS)
        settings.watch(engine.apply, engine.events.publish)
        closing.step("settings", settings.close, _CLOSE_SETTINGS_SECONDS)
        server.start()
        closing.step("server", server.stop, _CLOSE_SERVER_SECONDS)
        closing.step("requests", engine.stop_accepting, _REFUSE_SECONDS)
        _publish(Endpoint(server.url, os.getpid(), version(), str(token_path)))
        closing.callback(discovery.withdraw)
        if port and not server.url.endswith(f":{port}"):
            _log.warning("port %d is busy, so the endpoint is at %s", port, server.url)
        _log.info("Pilotlight %s serves at %s", version(), server.url)
        attend(Service(engine, settings, server.url, stop))
        _log.info("closing")
    return not closing.unfinished


def _publish(endpoint: Endpoint) -> None:
    try:
        discovery.publish(endpoint)
    except OSError as error:
        _log.warning("other programs cannot find the endpoint, because %s cannot be written: %s", error.filename, error)


def _wait(service: Service) -> None:
    service.stop.wait()

"""The endpoint's sockets and its thread."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from engine.errors import PilotlightError

_log = logging.getLogger(__name__)

_PORTS_TRIED: Final = 10
_BACKLOG: Final = 512
_MEND: Final = "Mend host and port, under [server] in the settings or on the command line."
# Windows says "access denied" for a port that another program holds for itself alone.
_BUSY: Final = (errno.EADDRINUSE, errno.EACCES) if hasattr(socket, "SO_EXCLUSIVEADDRUSE") else (errno.EADDRINUSE,)


class CannotListen(PilotlightError):
    """No socket could be opened at the host and port of the settings."""

    title = "The endpoint cannot listen"


def bind(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets on `port` or, if it is busy, on the next free of ten; port 0 takes any free one.

    If `host` is this computer alone, ::1 is served beside 127.0.0.1, because some clients try it first for
    "localhost". Raises CannotListen.
    """
    hosts = ("127.0.0.1", "::1") if host in ("127.0.0.1", "localhost") else (host,)
    for candidate in (port,) if port == 0 else range(port, min(port + _PORTS_TRIED, 65536)):
        try:
            return _bind_all(hosts, candidate)
        except UnicodeError as error:
            raise CannotListen(f"{host} is no name of a computer.", next_step=_MEND) from error
        except OSError as error:
            if error.errno not in _BUSY:
                raise CannotListen(
                    f"Cannot listen on {host}:{candidate}: {error.strerror}.", next_step=_MEND
                ) from error
            _log.warning("port %d is busy", candidate)
    raise CannotListen(
        f"The ports {port} to {port + _PORTS_TRIED - 1} are all busy.",
        next_step="Choose another port under [server] in the settings, or pass --port 0.",
    )


class Server:
    """An application on sockets of ours, served on the thread `engine-http`."""

    def __init__(self, app: ASGIApp, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=1,
        )
        self._uvicorn = _QuietServer(config)
        self._thread = threading.Thread(target=self._run, name="engine-http", daemon=True)

    @property
    def url(self) -> str:
        """The base URL for clients."""
        host, port = self._sockets[0].getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        """Start serving; requests sent before are answered too, because the sockets already listen."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Accept no more connections, let running answers end, and wait up to `timeout` seconds."""
        self._uvicorn.exit_soon()
        self._thread.join(timeout)
        if self._thread.is_alive():
            _log.warning("engine-http is still at work after %.1f s", timeout)
        for listening in self._sockets:
            listening.close()

    def _run(self) -> None:
        self._uvicorn.run(sockets=self._sockets)


class _QuietServer(uvicorn.Server):
    """uvicorn without its ten wake-ups a second, the largest cost of an idle Pilotlight."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._wake: Callable[[], object] | None = None

    async def main_loop(self) -> None:
        """Wait for the request to exit; uvicorn's own loop polls for it and renews the Date header every 0.1 s."""
        requested = asyncio.Event()
        self._wake = partial(asyncio.get_running_loop().call_soon_threadsafe, requested.set)
        if not self.should_exit:
            await requested.wait()

    def exit_soon(self) -> None:
        """Make the main loop exit; from any thread."""
        self.should_exit = True
        if self._wake is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._wake()


def _bind_all(hosts: tuple[str, ...], port: int) -> list[socket.socket]:
    bound: list[socket.socket] = []
    try:
        for host in hosts:
            try:
                bound.append(_listen(host, bound[0].getsockname()[1] if bound else port))
            except OSError as error:
                if not bound or error.errno == errno.EADDRINUSE:
                    raise
                _log.debug("not listening on %s: %s", host, error)
    except OSError:
        for listening in bound:
            listening.close()
        raise
    return bound


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            # On Windows SO_REUSEADDR would let a second program share the port.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening

"""Access to the endpoint: the checks of a request before any route gets it, and the control token."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.paths import write_atomically

_log = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 32 * 1024 * 1024
TOO_LARGE: Final = f"The body is larger than {MAX_BODY_BYTES // 1024 // 1024} MiB, the limit of one request."

Refuse = Callable[[str, int, str], Response]
"""(path, status, message) -> an answer in the shape of the dialect that the path belongs to."""


def token(path: Path) -> str:
    """Return the control token kept in `path`, or write a new one there; only this user can read it.

    If the file can be neither read nor written, the token is a new one that no client has: control is closed then.
    """
    made = secrets.token_urlsafe(32)
    try:
        if path.is_file() and (kept := _kept(path)):
            path.chmod(0o600)
            return kept
        write_atomically(path, made.encode(), mode=0o600)
    except OSError as error:
        _log.warning("control routes are closed, because %s cannot be used: %s", path, error)
    return made


def _kept(path: Path) -> str | None:
    """Return the content of the file, None if that cannot be a token."""
    kept = path.read_bytes().decode("ascii", errors="replace").strip()
    return kept if re.fullmatch(r"[\x21-\x7e]+", kept) else None


class Guard:
    """Checks `Host`, `Origin`, the token on control routes and the size of the body, then passes the request on.

    `Host` must name this computer, so that a web page that points its own name at 127.0.0.1 (DNS rebinding) gets
    no answer; `Origin`, which browsers send, must be a page of this computer.
    """

    def __init__(self, app: ASGIApp, *, host: str, token: str, refuse: Refuse) -> None:
        self._app = app
        self._host = host.lower()
        self._token = token.encode()
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._check(scope, Headers(scope=scope))
        if refusal is not None:
            await self._refuse(scope["path"], *refusal)(scope, receive, send)
            return
        await self._app(scope, _limited(receive), send)

    def _check(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(f"//{hosts[0]}"):
            return 403, "The Host header does not name this computer."
        if any(not self._is_ours(origin) for origin in headers.getlist("origin")):
            return 403, "Requests from this Origin are not allowed."
        if _needs_token(scope["method"], scope["path"]):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token):
                return (
                    401,
                    "This route needs the bearer token; the discovery file endpoint.json names the file it is in.",
                )
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            return 400, "The Content-Length header is not a number."
        if int(length) > MAX_BODY_BYTES:
            return 413, TOO_LARGE
        return None

    def _is_ours(self, url: str) -> bool:
        try:
            name = (urlsplit(url).hostname or "").lower().rstrip(".")
            _ = urlsplit(url).port
        except ValueError:
            return False
        if name in ("localhost", self._host):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # An address cannot be rebound; beyond loopback it is ours only if the settings make us listen beyond loopback.
        return address.is_loopback or not _is_loopback(self._host)


def _needs_token(method: str, path: str) -> bool:
    return path.startswith("/admin/") and (method not in ("GET", "HEAD", "OPTIONS") or path.startswith("/admin/config"))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _limited(receive: Receive) -> Receive:
    """Return `receive` with an end at the limit, for a body without a declared length."""
    seen = 0

    async def read() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY_BYTES:
            raise HTTPException(413, TOO_LARGE)
        return message

    return read

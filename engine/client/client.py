"""A client of a running Pilotlight, from the standard library alone."""

from __future__ import annotations

import json
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

from engine.errors import PilotlightError

if TYPE_CHECKING:
    from engine.discovery import Endpoint

_LOAD_SECONDS: Final = 3600.0
"""A request may have to wait for a first load, which may have to wait for a model's download."""


class Refused(PilotlightError):
    """The running Pilotlight answered with an error."""

    title = "Request refused"


class Unreachable(PilotlightError):
    """The running Pilotlight does not answer."""

    title = "Not reachable"


class Client:
    """A client of the Pilotlight that an `Endpoint` describes."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        # A proxy of the environment must not get the requests between two programs on one computer.
        self._opener = build_opener(ProxyHandler({}))

    @property
    def url(self) -> str:
        """The base URL of the running Pilotlight."""
        return self._endpoint.url

    def get(self, path: str, timeout: float = 10.0) -> dict[str, Any]:
        """Return the JSON of `path`; raises Refused or Unreachable."""
        return self._send(Request(self._endpoint.url + path), timeout)  # noqa: S310 - our own discovery file's http URL

    def post(self, path: str, content: Any = None, timeout: float = _LOAD_SECONDS) -> dict[str, Any]:
        """Post `content` as JSON, with the control token, and return the answer; raises Refused or Unreachable."""
        body = b"" if content is None else json.dumps(content).encode()
        return self._send(Request(self._endpoint.url + path, body, method="POST"), timeout)  # noqa: S310 - as above

    def control(self, name: str, verb: str) -> dict[str, Any]:
        """Run a control verb (`load`, `offload`, ...) on one encoder."""
        return self.post(f"/admin/components/{quote(name, safe='')}/{verb}")

    def settings_file(self) -> Path | None:
        """Return the settings file of the running Pilotlight, None if it has none."""
        file = self._config()["file"]
        return None if file is None else Path(file)

    def settings_problem(self) -> str | None:
        """Return the reason why the settings file is not in force; None if it is, or if the token cannot be read."""
        try:
            problem: str | None = self._config()["problem"]
        except Refused:
            return None
        return problem

    def encode(self, what: str, **fields: Any) -> dict[str, Any]:
        """Return the answer of `POST /encode/{what}`; fields that are None are not sent."""
        return self.post(f"/encode/{what}", {key: value for key, value in fields.items() if value is not None})

    def _config(self) -> dict[str, Any]:
        request = Request(f"{self._endpoint.url}/admin/config")  # noqa: S310 - as above
        request.add_header("Authorization", f"Bearer {self._token()}")
        return self._send(request, 10.0)

    def _send(self, request: Request, timeout: float) -> dict[str, Any]:
        request.add_header("Content-Type", "application/json")
        request.add_header("User-Agent", f"pilotlight/{self._endpoint.version}")
        if request.data is not None:
            request.add_header("Authorization", f"Bearer {self._token()}")
        try:
            with self._opener.open(request, timeout=timeout) as response:
                content: dict[str, Any] = json.load(response)
                return content
        except HTTPError as error:
            raise Refused(_message(error)) from error
        except (URLError, OSError, HTTPException, ValueError) as error:
            raise Unreachable(
                f"Pilotlight at {self._endpoint.url} does not answer: {getattr(error, 'reason', error)}.",
                next_step=f"If it hangs, end process {self._endpoint.pid} and start it again.",
            ) from error

    def _token(self) -> str:
        try:
            return Path(self._endpoint.token_path).read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise Refused(f"The token in {self._endpoint.token_path} cannot be read: {error}.") from error


def _message(error: HTTPError) -> str:
    with error:
        try:
            content = json.load(error)
            detail = content.get("detail") or content["error"]["message"]
            return f"{detail} {content['next_step']}" if content.get("next_step") else str(detail)
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"HTTP {error.code}"

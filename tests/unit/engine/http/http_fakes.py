"""A dense encoder without a model, and a caller of the endpoint without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import numpy as np
from starlette.types import ASGIApp

from engine.adapters.context import ALONE, Surroundings
from engine.adapters.protocol import Loaded
from engine.devices.placement import Footprint, Needs, Placement
from engine.errors import LoadFailed, Unavailable
from engine.operations.dense import Encoding
from engine.settings.config import EncoderConfig
from engine.state import Download


class FakeDense:
    """Knows the token ids 0 to 9; a text's vector starts with its length. `broken` is raised by `load`."""

    cannot_rest: str | None = "A fake rests nowhere."

    download: Download | None = None

    def __init__(self, config: EncoderConfig, device: str, surroundings: Surroundings = ALONE) -> None:
        self.config = config
        self.broken: Exception | None = {
            "./failing": LoadFailed("The disk is on fire.", next_step="Put it out."),
            "./missing": Unavailable("The folder is missing.", next_step="Put it there."),
        }.get(config.model)
        self.there = False

    def probe(self) -> None:
        if isinstance(self.broken, Unavailable):
            raise self.broken

    def load(self, on: str | None = None) -> Loaded:
        if self.broken is not None:
            raise self.broken
        self.there = True
        return Loaded("cpu", "7", 0.0, 0.0)

    def fault_in(self) -> None: ...

    @property
    def revision(self) -> str | None:
        return "7" if self.there else None

    def needs(self) -> Needs:
        return Needs("cpu", 1000)

    def resume(self, placement: Placement) -> str | None: ...

    def stale(self) -> str | None: ...

    def offload(self) -> Footprint:
        raise AssertionError(self.cannot_rest)

    def unload(self) -> bool:
        self.there = False
        return True

    def footprint(self) -> Footprint:
        return Footprint(1000, 0, 1000) if self.there else Footprint(0, 0, 0)

    def encode(self, inputs: Sequence[Any], *, task: str | None = None, dimensions: int | None = None) -> Encoding:
        vectors = np.asarray([[len(item), 0.5, -2.0] for item in inputs], dtype=np.float32)[:, :dimensions]
        return Encoding(vectors, sum(map(len, inputs)))


class Caller:
    """Sends requests straight into an ASGI application."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    def send(
        self, method: str, path: str, *, authorized: bool = False, host: str = "127.0.0.1:7458", **more: Any
    ) -> httpx.Response:
        """Send one request; an error inside the application arrives as the answer it makes of it."""
        headers = {"Host": host, **more.pop("headers", {})}
        if authorized:
            headers["Authorization"] = f"Bearer {self._token}"

        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7458") as client:
                return await client.request(method, path, headers=headers, **more)

        return asyncio.run(once())

    def embed(self, content: Any, **fields: Any) -> httpx.Response:
        """Post an embeddings request."""
        return self.send("POST", "/v1/embeddings", json={"input": content, **fields})

    def raw(self, body: bytes | AsyncIterator[bytes], path: str = "/v1/embeddings", **headers: str) -> httpx.Response:
        """Post bytes as they are."""
        named = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        return self.send("POST", path, content=body, headers=named)

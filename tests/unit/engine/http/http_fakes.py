"""Encoders without a model, and a caller of the endpoint without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.adapters.context import DETACHED, AdapterContext
from engine.adapters.protocol import Loaded
from engine.devices.placement import Footprint, Needs, Placement
from engine.engine import Engine
from engine.errors import InvalidInput, LoadFailed, Unavailable
from engine.http.app import create_app
from engine.operations.classify import Classification
from engine.operations.cut import Cut
from engine.operations.dense import Encoding
from engine.operations.inputs import ITEMS
from engine.operations.multi import MultiEncoding
from engine.operations.rerank import Scores
from engine.operations.sparse import SparseEncoding, SparseVector
from engine.operations.tag import Tagged
from engine.settings.config import EncoderConfig
from engine.settings.file import SettingsFile
from engine.state import Download

LONGEST = 1000
"""Characters or ids that a fake reads of one input."""


def cut(inputs: Sequence[Any], truncate: bool) -> Cut:
    """What a fake does not read of `inputs`; refused without `truncate`, as adapters do."""
    lengths = [sum(map(len, one)) if isinstance(one, tuple) else len(one) for one in inputs]
    for index, length in enumerate(lengths):
        if length > LONGEST and not truncate:
            raise InvalidInput(f"{ITEMS}[{index}] has {length} tokens; a fake reads {LONGEST}.", param=ITEMS)
    more = [length - LONGEST for length in lengths if length > LONGEST]
    return Cut(len(more), sum(more))


def unit(vector: Sequence[float]) -> list[float]:
    """The vector with length 1, as OpenAI's dialect has them."""
    return [float(value) / float(np.linalg.norm(vector)) for value in vector]


class FakeDense:
    """Knows the token ids 0 to 9; a text's vector starts with its length. `broken` is raised by `load`."""

    cannot_rest: str | None = "A fake rests nowhere."

    download: Download | None = None

    def __init__(self, config: EncoderConfig, device: str, context: AdapterContext = DETACHED) -> None:
        self.config = config
        self.broken: Exception | None = {
            "failing": LoadFailed("The disk is on fire.", next_step="Put it out."),
            "missing": Unavailable("The folder is missing.", next_step="Put it there."),
        }.get(config.model.removeprefix("./"))
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
    def mended(self) -> str | None: ...

    def offload(self) -> Footprint:
        raise AssertionError(self.cannot_rest)

    def unload(self) -> bool:
        self.there = False
        return True

    def footprint(self) -> Footprint:
        return Footprint(1000, 0, 1000) if self.there else Footprint(0, 0, 0)

    def encode(
        self, inputs: Sequence[Any], *, task: str | None = None, dimensions: int | None = None, truncate: bool = True
    ) -> Encoding:
        vectors = np.asarray([[len(item), 0.5, -2.0] for item in inputs], dtype=np.float32)[:, :dimensions]
        return Encoding(vectors, sum(map(len, inputs)), cut(inputs, truncate))


class FakeAny(FakeDense):
    """Can do what every kind can, with the least of each result."""

    labels = ("entailment", "neutral", "contradiction")

    def encode_images(self, images: Sequence[bytes], field: str = "images") -> Encoding:
        return self.encode(images)

    def encode_sparse(
        self, inputs: Sequence[Any], *, task: str | None = None, top_k: int = 128, truncate: bool = True
    ) -> SparseEncoding:
        vector = SparseVector(np.zeros(1, np.int32), np.ones(1, np.float32), ("a",))
        return SparseEncoding((vector,) * len(inputs), 0, cut(inputs, truncate))

    def encode_multi(
        self, inputs: Sequence[str], *, want: Collection[str], top_k: int | None = None, truncate: bool = True
    ) -> MultiEncoding:
        return MultiEncoding(
            self.encode(inputs).vectors,
            self.encode_sparse(inputs).vectors,
            (np.ones((1, 2), np.float32),) * len(inputs),
            0,
            cut(inputs, truncate),
        )

    def score(self, query: str, documents: Sequence[str], truncate: bool = True) -> Scores:
        scores = np.full(len(documents), 0.5, np.float32)
        return Scores(scores, scores, 0, cut(documents, truncate))

    def classify(self, inputs: Sequence[Any], truncate: bool = True) -> Classification:
        logits = np.zeros((len(inputs), 3), np.float32)
        return Classification(self.labels, logits + np.float32(1 / 3), logits, 0, cut(inputs, truncate))

    def tag(self, texts: Sequence[str]) -> tuple[Tagged, ...]:
        return (Tagged((), ()),) * len(texts)

    def call(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        return dict(arguments)


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


TOKEN = "the-token"


class Forward:
    """Stands for whatever `target` is at the moment."""

    target: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)


@cache
def application(has_settings: bool) -> tuple[Forward, Forward, ASGIApp]:
    engine: Any = Forward()
    settings: Any = Forward()
    file = settings if has_settings else None
    return engine, settings, create_app(engine, host="127.0.0.1", token=TOKEN, version="1.2.3", settings=file)


def caller_of(engine: Engine, settings: SettingsFile | None = None) -> Caller:
    """Return a caller of the endpoint in front of `engine`: one application for all, because it is slow to make."""
    current, file, app = application(settings is not None)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        current.target, file.target = engine, settings
        await app(scope, receive, send)

    return Caller(serve, TOKEN)


@contextmanager
def served(file: SettingsFile) -> Iterator[tuple[Engine, Caller]]:
    """Serve the encoders of a settings file as fakes; changes of the file are applied."""
    with Engine(file.open(), adapter=FakeDense) as engine:
        file.watch(engine.apply, engine.events.publish)
        yield engine, caller_of(engine, file)
        file.close()


def written(folder: Path, text: str) -> SettingsFile:
    """Write a settings file."""
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return SettingsFile(path)

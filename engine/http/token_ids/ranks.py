"""The ranks of cl100k_base: the bytes of each token, in one file that OpenAI publishes.

Source: `tiktoken_ext/openai_public.py` and `tiktoken/load.py` of tiktoken, which name the address, the digest and the
folders of copies.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Final

from engine.paths import cache_folder, write_atomically

_log = logging.getLogger(__name__)

ADDRESS: Final = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
FILE: Final = hashlib.sha1(ADDRESS.encode(), usedforsecurity=False).hexdigest()
"""The name of a copy in the folders of tiktoken."""
DIGEST: Final = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
_BYTES: Final = 1_681_126

_PAUSE_SECONDS: Final = 60.0
"""Time after a failed fetch in which no request tries another."""
_SILENCE_SECONDS: Final = 10.0
"""Longest wait for the next bytes of the network."""
_LONGEST_FETCH_SECONDS: Final = 120.0


class NoRanks(Exception):
    """There is no copy of the file and none can be fetched; the text says why, as a clause."""


class RanksFile:
    """The file: a verified copy on this computer, else fetched once and kept. One thread at a time may use it."""

    def __init__(self, fetch: Callable[[], bytes] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch or _fetched
        self._clock = clock
        self._failure: tuple[float, NoRanks] | None = None

    def read(self, *, offline: bool) -> dict[bytes, int]:
        """Return token -> rank, which is the token's id; asks the network only if not `offline`. Raises NoRanks."""
        content = self._copy()
        if content is None:
            content = self._fetch_again(offline=offline)
            _keep(content)
        return ranks_of(content)

    def _copy(self) -> bytes | None:
        for folder, is_swept in _folders():
            content = _verified(folder / FILE)
            if content is not None:
                if is_swept:
                    _keep(content)
                return content
        return None

    def _fetch_again(self, *, offline: bool) -> bytes:
        if offline:
            raise NoRanks("its ranks are not on this computer, and `[hub] offline` forbids to fetch them")
        if self._failure is not None and self._clock() < self._failure[0] + _PAUSE_SECONDS:
            raise self._failure[1]
        try:
            content = self._fetch()
        except (OSError, HTTPException, ValueError) as error:
            raise self._failed(error) from error
        if not _is_known(content):
            raise self._failed("what came is another file")
        return content

    def _failed(self, why: object) -> NoRanks:
        _log.warning("%s could not be fetched: %s", ADDRESS, why)
        failure = NoRanks(f"its ranks could not be fetched from {ADDRESS} ({why})")
        self._failure = (self._clock(), failure)
        return failure


def ranks_of(content: bytes) -> dict[bytes, int]:
    """Return token -> rank of the file's content."""
    lines = (line.split() for line in content.splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def _own() -> Path:
    return cache_folder() / "tiktoken"


def _folders() -> Iterator[tuple[Path, bool]]:
    """Yield the folders that may hold a copy, in tiktoken's order and then ours, and whether the system sweeps them."""
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if folder := os.environ.get(variable):
            yield Path(folder), False
    yield _own(), False
    yield Path(tempfile.gettempdir()) / "data-gym-cache", True


def _verified(path: Path) -> bytes | None:
    """Return the content of a copy, None if there is none or it is not the known file."""
    try:
        # The size first: what lies in a folder of temporary files may be anything, also a pipe.
        content = path.read_bytes() if path.is_file() and path.stat().st_size == _BYTES else b""
    except OSError:
        return None
    return content if _is_known(content) else None


def _is_known(content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == DIGEST


def _keep(content: bytes) -> None:
    """Write a copy into our own cache, unless it cannot be written."""
    try:
        _own().mkdir(parents=True, exist_ok=True)
        write_atomically(_own() / FILE, content)
    except OSError as error:
        _log.warning("%s could not be kept: %s", FILE, error)


def _fetched() -> bytes:
    """Return the file as the network has it; raises OSError, also where that takes too long."""
    ends = time.monotonic() + _LONGEST_FETCH_SECONDS
    content = b""
    with urllib.request.urlopen(ADDRESS, timeout=_SILENCE_SECONDS) as answer:
        while len(content) <= _BYTES and (some := answer.read(65536)):
            content += some
            if time.monotonic() > ends:
                raise TimeoutError("it takes too long")
    return content

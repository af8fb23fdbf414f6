"""The download of one large file from a model hub; it resumes after a lost connection, a quit or a crash.

huggingface_hub resumes within one call only, and deletes the part that a failed call leaves.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from engine.state import Download

_log = logging.getLogger(__name__)

_EVERY_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 20.0
"""Seconds that a server may send nothing."""
_ETAG: Final = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
"""git's hash of a small file, SHA-256 of a large one."""


class Progress:
    """The bytes of one download, reported at its begin, about once a second, and at its end."""

    def __init__(
        self, report: Callable[[Download], None] = lambda download: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._report = report
        self._clock = clock
        self._done = 0
        self._total: int | None = None
        self._reported = 0.0

    def begin(self, total: int) -> None:
        """Report the download of `total` bytes."""
        self._total = total
        self._report_now()

    def add(self, nbytes: int) -> None:
        """Count bytes that came; less than zero for bytes that must come again."""
        self._done += nbytes
        if self._clock() - self._reported >= _EVERY_SECONDS:
            self._report_now()

    def end(self) -> None:
        """Report the end, also that of a failed download."""
        self._report_now()

    def _report_now(self) -> None:
        self._reported = self._clock()
        self._report(Download(self._done, self._total))


def fetch_large(model: str, name: str, snapshot: Path, progress: Progress) -> bool:
    """Download one file of a repository into the hub's cache; returns False if the hub's library must do it.

    `snapshot` is the commit's folder in the cache. Raises OSError, and the errors of huggingface_hub and its HTTP
    library. The layout of the cache is documented: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import are_symlinks_supported
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    url = hf_hub_url(model, name, revision=snapshot.name)
    found = get_hf_file_metadata(url)
    if found.etag is None or found.size is None or not _ETAG.fullmatch(found.etag):
        return False
    repository = snapshot.parent.parent
    blob = repository / "blobs" / found.etag
    lock = repository.parent / ".locks" / repository.name / f"{found.etag}.lock"
    for place in (blob.parent, lock.parent):
        place.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.exists():
            progress.add(found.size)
            return True
        partial = blob.with_name(f"{found.etag}.incomplete")
        _fill(partial, url, found.size, progress)
        if len(found.etag) == 64 and _sha256(partial) != found.etag:
            partial.unlink()
            raise OSError(f"{name} arrived damaged")
        if are_symlinks_supported(repository.parent):
            partial.replace(blob)
        else:  # without links the library would keep a second copy
            target = snapshot / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(partial, target)
    return True


def _fill(partial: Path, url: str, size: int, progress: Progress) -> None:
    """Fetch the missing rest of a file; tries again at once as long as each try brings some bytes."""
    import httpx2

    with partial.open("ab") as file:
        if file.tell() > size:
            file.truncate(0)
        progress.add(file.tell())
        farthest = file.tell()
        while file.tell() < size:
            try:
                _receive(file, url, progress)
            except httpx2.TransportError as error:
                if file.tell() <= farthest:
                    raise
                _log.info("the download of %s goes on at byte %d: %s", url, file.tell(), error)
            else:
                if file.tell() != size and file.tell() <= farthest:
                    raise OSError(f"{file.tell()} bytes arrived and not {size}")
            farthest = max(farthest, file.tell())
        if file.tell() != size:
            file.truncate(0)
            raise OSError(f"more than {size} bytes arrived")
        file.flush()
        os.fsync(file.fileno())


def _receive(file: Any, url: str, progress: Progress) -> None:
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        get_session,
        hf_raise_for_status,
    )

    begin = file.tell()
    # Compressed bytes could not be counted from the middle of the file.
    headers = {**build_hf_headers(), "Accept-Encoding": "identity", "Range": f"bytes={begin}-"}
    with get_session().stream("GET", url, headers=headers, timeout=_PATIENCE_SECONDS) as response:
        hf_raise_for_status(response)
        if begin and response.status_code != 206:  # it sends all of it again
            file.truncate(0)
            file.seek(0)
            progress.add(-begin)
        for part in response.iter_raw():
            file.write(part)
            progress.add(len(part))


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

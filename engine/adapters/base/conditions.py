"""The conditions of a load: its files, what is installed, and whether a hub may be asked."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from stat import S_ISDIR
from typing import Final

from engine.adapters.packages import forget_missing

_DEEPEST: Final = 4
"""Levels of folders below a model's own, of which a spaCy pipeline has the most."""
_MOST_ENTRIES: Final = 1024
"""Files and folders that are looked at, the upper ones first; a folder with more is hardly one model's."""

_Files = Mapping[str, tuple[int, int]]
"""Path -> size in bytes and time of the last change in ns."""


@dataclass(frozen=True, slots=True)
class _Seen:
    places: tuple[Path, ...]
    files: _Files
    packages: tuple[tuple[str, int], ...]
    offline: bool

    @classmethod
    def now(cls, places: tuple[Path, ...], *, offline: bool) -> _Seen:
        return cls(places, dict(found for place in places for found in _files(place)), _packages(), offline)


class Conditions:
    """The conditions as they were at the last load; any thread may compare them with those of this instant."""

    def __init__(self, offline: Callable[[], bool]) -> None:
        """Look at nothing yet; `offline` says whether the settings forbid to ask a hub."""
        self._offline = offline
        self._seen: _Seen | None = None

    def note(self, *places: Path) -> None:
        """Look now, before a load that reads its files from these places, and let it find new packages."""
        before, self._seen = self._seen, _Seen.now(places, offline=self._offline())
        if before is not None and before.packages != self._seen.packages:
            forget_missing()

    def change(self) -> str | None:
        """Return the first change since, in words; None for no change. Reads no file."""
        seen = self._seen
        if seen is None:
            return "it was not loaded yet"
        now = _Seen.now(seen.places, offline=self._offline())
        if now.packages != seen.packages:
            return "packages were installed or removed"
        if now.offline != seen.offline:
            return "the settings changed whether a hub may be asked"
        name = next((name for name, _ in sorted(set(now.files.items()) ^ set(seen.files.items()))), None)
        return f"{name} changed" if name else None


def _files(place: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """The files in a folder down to some depth, those behind links too, without hidden folders; a file alone."""
    if place.is_file():
        status = place.stat()
        yield str(place), (status.st_size, status.st_mtime_ns)
    pending, left = deque([(place, 0)]), _MOST_ENTRIES
    while pending and left > 0:
        folder, depth = pending.popleft()
        entries = _entries(folder, left)
        left -= len(entries)
        for entry in entries:
            try:
                status = entry.stat()
            except OSError:  # a link without a target, or removed meanwhile
                continue
            if not S_ISDIR(status.st_mode):
                yield entry.path, (status.st_size, status.st_mtime_ns)
            elif depth < _DEEPEST and not entry.name.startswith("."):
                pending.append((Path(entry.path), depth + 1))


def _entries(folder: Path, most: int) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(islice(entries, most), key=lambda entry: entry.name)
    except OSError:
        return []


def _packages() -> tuple[tuple[str, int], ...]:
    """The folders of installed packages with the times at which an installation last changed each."""
    found = []
    for place in dict.fromkeys(sys.path):
        try:
            modified = Path(place).stat().st_mtime_ns
        except OSError:
            continue
        if _holds_packages(place, modified):
            found.append((place, modified))
    return tuple(found)


@lru_cache(64)
def _holds_packages(place: str, modified: int) -> bool:
    """Whether pip installs into a folder; one of plain scripts may change at any time. `modified` is for the cache."""
    folder = Path(place)
    if folder.name in ("site-packages", "dist-packages"):
        return True
    try:
        return any(inside.name.endswith((".dist-info", ".egg-info")) for inside in folder.iterdir())
    except OSError:
        return False

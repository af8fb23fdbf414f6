"""The files of one load, what is recalled of an earlier one, and what is left of one that ended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from engine.adapters.base import model_source
from engine.adapters.base.leftovers import Leftovers
from engine.adapters.base.model_source import Recall, Source, open_source
from engine.adapters.sources.locate import Reference
from engine.errors import LoadFailed
from engine.weights.files.identity import Identity
from engine.weights.home import Home


class FakeFiles:
    """A linked folder without links."""

    def __init__(self, *files: Path) -> None:
        self.folder = Path("links")
        self.sources = tuple(Identity.of(file) for file in files)
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def source(*files: Path, made_by: str = "a library 1") -> Source:
    return Source(Path("own"), cast(Any, FakeFiles(*files)), "r1", made_by)


def test_findings_and_writes_are_for_the_same_files_read_by_the_same_libraries(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"one")
    first, recall = source(file), Recall()
    recall.about(first)
    recall.found = {"weight": (file, "weight")}
    recall.about(source(file))
    assert recall.found
    recall.about(replace(first, made_by="a library 2"))
    assert not recall.found
    recall.found = {"weight": (file, "weight")}
    file.write_bytes(b"another")
    recall.about(source(file, made_by="a library 2"))
    assert not recall.found


def test_links_are_closed_where_the_files_cannot_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: object) -> str:
        raise LoadFailed("small could not be loaded: a file cannot be read.")

    files = FakeFiles()
    monkeypatch.setattr(model_source, "open_folder", lambda *_: files)
    monkeypatch.setattr(model_source, "revision", unreadable)
    with pytest.raises(LoadFailed, match="cannot be read"):
        open_source(
            "small",
            Reference(str(tmp_path), local=True),
            tmp_path,
            store=cast(Any, None),
            libraries="a library 1",
        )
    assert files.closed == 1


class FakeHome:
    """A closed home of whose weights some bytes are still in memory."""

    def __init__(self, left: int, remains: int | None) -> None:
        self.left, self._remains, self.gone = left, remains, False
        self.forgot = 0

    def remains(self) -> int | None:
        return self._remains

    def forget_files(self) -> None:
        self.forgot += 1


def test_what_did_not_come_free_counts_until_it_does() -> None:
    leftovers, homes = Leftovers(), [FakeHome(1, 10), FakeHome(2, 20)]
    assert (leftovers.gone(), leftovers.on_device, leftovers.in_ram) == (True, 0, 0)
    for home in homes:
        leftovers.add(cast(Home, home))
    assert (leftovers.gone(), leftovers.on_device, leftovers.in_ram) == (False, 3, 30)
    homes[0].gone = True
    assert (leftovers.gone(), leftovers.on_device, leftovers.in_ram) == (False, 2, 20)
    homes[1]._remains = None
    assert leftovers.in_ram is None
    homes[1].gone = True
    assert leftovers.gone()
    assert [home.forgot for home in homes] == [2, 3]

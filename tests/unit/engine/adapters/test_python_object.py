"""Adapters of plain Python objects: loaded whole, dropped whole, and honest about it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from engine.adapters.base.python_object import ObjectAdapter
from engine.devices.placement import NOTHING, Footprint, Needs, Placement
from engine.errors import CannotRest, Unavailable
from engine.settings.config import EncoderConfig


class Thing:
    """What is held; it may refer to itself, as a model's parts do."""

    def __init__(self) -> None:
        self.itself = self


class ThingAdapter(ObjectAdapter):
    size: int | None = 100
    file: Path | None = None
    device = "cpu"
    closing: BaseException | None = None

    def _load(self) -> Any:
        return Thing()

    def _nbytes(self, held: Any) -> int | None:
        return self.size

    def _revision_of(self, held: Any) -> str | None:
        return "one"

    def _metadata(self, held: Any) -> dict[str, Any]:
        return {"dimension": 3}

    def _device_of(self, held: Any) -> str:
        return self.device

    def _files(self) -> Iterable[Path]:
        return () if self.file is None else (self.file,)

    def _close(self, held: Any) -> None:
        if self.closing is not None:
            raise self.closing


@pytest.fixture
def adapter() -> ThingAdapter:
    return ThingAdapter(EncoderConfig("thing", "plugin", "thing"), "auto")


def test_its_bytes_are_in_ram_until_it_computes_and_gone_afterwards(adapter: ThingAdapter) -> None:
    assert adapter.footprint() == NOTHING
    loaded = adapter.load()
    assert (loaded.device, loaded.revision, adapter.revision, loaded.metadata) == (
        "cpu",
        "one",
        "one",
        {"dimension": 3},
    )
    assert adapter.needs() == Needs("cpu", 100)
    assert adapter.footprint() == Footprint(0, 100, 100)
    assert adapter.resume(Placement("cpu")) is None
    assert adapter.footprint() == Footprint(100, 0, 100)
    assert adapter.unload()
    assert adapter.footprint() == NOTHING


def test_what_it_does_not_know_is_unknown(adapter: ThingAdapter) -> None:
    adapter.size = None
    adapter.load()
    assert adapter.footprint() == Footprint(None, None, None)
    adapter.resume(Placement("cpu"))
    assert adapter.footprint() == Footprint(None, None, None)
    kept = adapter._held
    assert not adapter.unload()
    assert adapter.footprint() == Footprint(None, None, 0)
    del kept
    assert adapter.unload()
    assert adapter.footprint() == NOTHING


def test_it_cannot_rest_and_says_why(adapter: ThingAdapter) -> None:
    adapter.load()
    with pytest.raises(CannotRest, match="unloaded"):
        adapter.offload()


def test_one_that_somebody_refers_to_is_left_until_it_goes(adapter: ThingAdapter) -> None:
    adapter.load()
    kept = adapter._held
    assert not adapter.unload()
    assert adapter.footprint() == Footprint(100, 0, 0)
    adapter.load()
    adapter.resume(Placement("cpu"))
    assert adapter.footprint() == Footprint(200, 0, 100)
    del kept
    assert adapter.unload()


def test_one_that_does_not_end_cleanly_is_dropped_all_the_same(adapter: ThingAdapter) -> None:
    for adapter.closing in (RuntimeError("no"), SystemExit(3)):
        adapter.load()
        assert adapter.unload()
        assert adapter.unload()


def test_on_a_device_it_needs_no_more_room_than_it_has(adapter: ThingAdapter) -> None:
    adapter.device = "cuda:0"
    assert adapter.load().device == "cuda:0"
    assert adapter.needs() == Needs("cuda:0", 0)
    assert adapter.footprint() == Footprint(100, 0, 100)


def test_a_file_that_changed_makes_it_stale(adapter: ThingAdapter, tmp_path: Path) -> None:
    adapter.file = tmp_path / "file"
    adapter.file.write_text("a")
    adapter.load()
    assert adapter.stale() is None
    adapter.file.write_text("longer")
    assert "changed" in (adapter.stale() or "")
    adapter.unload()
    assert adapter.stale() is None


def test_a_missing_package_is_found_before_the_load(adapter: ThingAdapter) -> None:
    adapter.packages = ("not_a_package",)  # type: ignore[misc]
    with pytest.raises(Unavailable, match="not-a-package is not installed"):
        adapter.probe()


def test_an_error_of_an_import_that_a_later_try_may_mend_keeps_its_cause(
    adapter: ThingAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    cause = OSError("the disk is away")

    def half_imported() -> None:
        raise ImportError("cannot import name 'x' from partially initialized module 'y'") from cause

    monkeypatch.setattr(adapter, "_import_library", half_imported)
    with pytest.raises(ImportError) as caught:
        adapter.load()
    assert caught.value.__cause__ is cause

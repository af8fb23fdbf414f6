"""Looks at a torch adapter from another thread than the one that unloads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from engine.adapters.base.torch_module import TorchAdapter
from engine.devices.placement import NOTHING, Footprint
from engine.settings.config import EncoderConfig
from engine.weights.home import Home

HERE = Footprint(1, 2, 3)


class FakeHome:
    """A home with weights, whose files changed."""

    def footprint(self) -> Footprint:
        return HERE

    def stale(self) -> str:
        return "It changed."


class Vanishing(TorchAdapter):
    """An adapter that another thread unloads right after its home was read."""

    _homes: list[Home | None]

    @property
    def _home(self) -> Home | None:
        return self._homes.pop() if self._homes else None

    @_home.setter
    def _home(self, home: Home | None) -> None:
        self._homes = [] if home is None else [home]

    def _construct(self, folder: Path) -> Any:
        raise NotImplementedError


def test_looks_while_another_thread_unloads_see_the_weights_or_none() -> None:
    adapter = Vanishing(EncoderConfig("one", "dense", "org/name"), "cpu")
    for look, seen in ((adapter.footprint, HERE), (adapter.stale, "It changed.")):
        adapter._home = cast(Home, FakeHome())
        assert look() == seen
    assert (adapter.footprint(), adapter.stale()) == (NOTHING, None)

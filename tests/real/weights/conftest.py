"""Homes and engines over real weights files, with a store of converted weights for each test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from home_modules import Adopt
from small_models import bert
from torch import nn
from weights_bench import Bench

from engine.devices.placement import CPU
from engine.weights.files.identity import Identity
from engine.weights.files.store import Store
from engine.weights.home import Home
from engine.weights.home_request import HomeRequest


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def adopt(store: Store) -> Iterator[Adopt]:
    """Gives a module a home over files; every home that a test leaves open is closed at its end."""
    homes = []

    def begin(module: nn.Module, *files: Path, device: str = CPU, kept: Store = store, **choices: Any) -> Home:
        sources = [Identity.of(file) for file in files]
        request = HomeRequest(sources=tuple(sources), device=device, made_by="a test", **choices)
        homes.append(Home(module, kept, request))
        return homes[-1]

    yield begin
    for home in homes:
        if home._regions or home._backing.mappings:
            home.close()


@pytest.fixture(autouse=True)
def cache(own_cache: Path) -> Path:
    return own_cache


@pytest.fixture
def over() -> Iterator[Callable[[Path], Bench]]:
    """Makes engines, and closes them."""
    benches = []

    def begin(folder: Path) -> Bench:
        benches.append(Bench(folder))
        return benches[-1]

    yield begin
    closed = [bench.engine.close() for bench in benches]
    assert all(closed)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes each small model once."""
    made: dict[str, Path] = {}
    root = tmp_path_factory.mktemp("models")

    def make(**how: Any) -> Path:
        key = json.dumps(how)
        if key not in made:
            made[key] = bert(root / str(len(made)), **how)
        return made[key]

    return make

"""Real processes with the real weights; importing torch costs each of them seconds, so most tests share one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines import engine_of
from expected import Reference, importing_root
from filelock import FileLock
from running import ROOT, SETTINGS, Home, Running

from engine import Engine


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """Vectors of sentence-transformers itself, computed once for all workers."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    target = folder / "reference.json"
    with FileLock(target.with_suffix(".lock")):
        if not target.exists():
            script = ROOT / "tests" / "real" / "reference.py"
            subprocess.run([sys.executable, str(script), str(target)], cwd=ROOT, check=True, env=importing_root())
    found = json.loads(target.read_text(encoding="utf-8"))
    return Reference(**found | {"vectors": np.asarray(found["vectors"], dtype=np.float32)})


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The shared Pilotlight: lazy, its idle timeout off; a test that changes more puts it back."""
    running = Running(Home(tmp_path_factory.mktemp("app")))
    yield running
    running.end()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def start(home: Home) -> Iterator[Callable[..., Running]]:
    """Starts a Pilotlight of the test's own, with the command line's arguments and a settings file."""
    with ExitStack() as ends:

        def begin(*arguments: str, settings: str = SETTINGS) -> Running:
            home.settings.write_text(settings, encoding="utf-8")
            running = Running(home, *arguments)
            ends.callback(running.end)
            return running

        yield begin


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of converted weights, the test's own."""
    from engine.adapters.base import torch_module

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch_module._store.cache_clear()
    yield tmp_path / "cache" / "pilotlight" / "weights"
    torch_module._store.cache_clear()


@pytest.fixture
def serve(own_cache: Path) -> Iterator[Callable[..., Engine]]:
    """Starts engines with one encoder, named after its kind: `serve(kind, model, **settings)`."""
    engines: list[Engine] = []

    def begin(kind: str, model: Path | str, **settings: Any) -> Engine:
        engines.append(engine_of(kind, **{kind: {"model": str(model), **settings}}))
        return engines[-1]

    yield begin
    for engine in engines:
        assert engine.close()

"""The endpoint in front of a real engine whose encoders are fakes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from http_fakes import Caller, FakeDense, caller_of, served, written

from engine import paths
from engine.engine import Engine
from engine.settings.file import SettingsFile
from engine.settings.parsing import parse

SETTINGS = """\
[hardware]
idle_timeout_seconds = 0  # off

[encoders.fake]
kind = "dense"
model = "./fake"
aliases = ["other-name"]

[encoders.failing]
kind = "dense"
model = "./failing"

[encoders.missing]
kind = "dense"
model = "./missing"
"""


@pytest.fixture(autouse=True)
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "state_folder", lambda: tmp_path / "state")


@pytest.fixture
def settings(tmp_path: Path) -> SettingsFile:
    return written(tmp_path, SETTINGS)


@pytest.fixture
def service(settings: SettingsFile) -> Iterator[tuple[Engine, Caller]]:
    with served(settings) as service:
        yield service


@pytest.fixture
def engine(service: tuple[Engine, Caller]) -> Engine:
    return service[0]


@pytest.fixture
def caller(service: tuple[Engine, Caller]) -> Caller:
    return service[1]


@pytest.fixture
def bare_caller() -> Iterator[Caller]:
    """An engine without any encoder and without a settings file."""
    with Engine(parse({"encoders": {}}), adapter=FakeDense) as engine:
        yield caller_of(engine)

"""The endpoint in front of a real engine whose encoders are fakes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from http_fakes import Caller, FakeDense

from engine import paths
from engine.engine import Engine
from engine.http.app import create_app
from engine.settings.file import SettingsFile
from engine.settings.parsing import parse

TOKEN = "the-token"

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


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SettingsFile:
    monkeypatch.setattr(paths, "state_folder", lambda: tmp_path / "state")
    path = tmp_path / "settings.toml"
    path.write_text(SETTINGS, encoding="utf-8")
    return SettingsFile(path)


@pytest.fixture
def engine(settings: SettingsFile) -> Iterator[Engine]:
    with Engine(settings.open(), adapter=FakeDense) as engine:
        settings.watch(engine.apply, engine.events.publish)
        yield engine
        settings.close()


@pytest.fixture
def caller(engine: Engine, settings: SettingsFile) -> Caller:
    return Caller(create_app(engine, host="127.0.0.1", token=TOKEN, version="1.2.3", settings=settings), TOKEN)


@pytest.fixture
def bare_caller() -> Iterator[Caller]:
    """An engine without any encoder and without a settings file."""
    with Engine(parse({"encoders": {}}), adapter=FakeDense) as engine:
        yield Caller(create_app(engine, host="127.0.0.1", token=TOKEN, version="1.2.3"), TOKEN)

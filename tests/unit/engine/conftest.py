"""An engine over fake adapters, closed after its test."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from engine_bench import Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.engine.close()


@pytest.fixture
def before() -> set[threading.Thread]:
    return set(threading.enumerate())

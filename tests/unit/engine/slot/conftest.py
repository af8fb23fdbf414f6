"""One slot over a fake adapter."""

from __future__ import annotations

import pytest
from engine_fakes import SlotBench


@pytest.fixture
def bench() -> SlotBench:
    return SlotBench()

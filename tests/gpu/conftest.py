"""The cases need a process without the fake device, so this run leaves them to `test_on_a_gpu.py`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.append(str(HERE.parents[1] / "build" / "bench"))  # card.py, models.py

collect_ignore = ["cases"]


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Keep this folder's own test where the command line names the folder: `-k` then chooses among the cases."""
    named = any(Path(argument.partition("::")[0]).resolve().is_relative_to(HERE) for argument in config.args)
    kept = [item for item in items if named and item.path.parent == HERE]
    items[:] = [item for item in items if item not in kept]
    yield
    items += kept

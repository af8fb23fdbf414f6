"""The order of the tests, the quick selection and the soaks."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FIRST = ["real", "test_house.py", "desktop", "device"]
"""Long files first, so that parallel workers end at about the same time."""
NOT_QUICK = ["real", "desktop", "gpu"]
LINUX = ["desktop"]
"""Folders whose tests import packages that only Linux has."""

# For every process of a test, before it loads torch. Otherwise a waiting thread of libgomp spins, and while another
# worker has that core, each small layer takes a hundred times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# The ranks of OpenAI's tokenizer, which come with litellm: see build/environment.py.
RANKS = Path(sys.prefix, "litellm", "litellm", "litellm_core_utils", "tokenizers")
os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(RANKS))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pilotlight")
    group.addoption("--quick", action="store_true", help=f"leave out {', '.join(NOT_QUICK)} and tests marked slow")
    group.addoption("--soak", metavar="NAME", help="run only the tests marked soak(NAME), at full length")


def pytest_configure(config: pytest.Config) -> None:
    try:
        import hypothesis
    except ImportError:  # a rented machine has what tests/gpu needs
        return
    register, no_limit = hypothesis.settings.register_profile, {"deadline": None, "database": None}
    register("tests", max_examples=100, derandomize=True, **no_limit)
    register("soak", max_examples=20_000, print_blob=True, **no_limit)
    hypothesis.settings.load_profile("soak" if config.getoption("soak") else "tests")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if collection_path.parent == HERE and collection_path.name in _left_out(config) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=_place)
    chosen = [item for item in items if _is_chosen(item, config)]
    if left_out := [item for item in items if item not in set(chosen)]:
        config.hook.pytest_deselected(items=left_out)
        items[:] = chosen


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    folders = ", ".join(f"tests/{name}" for name in _left_out(config))
    if config.getoption("quick"):
        terminalreporter.write_line(f"Quick: left out {folders} and the tests marked slow.")
        terminalreporter.write_line("Everything: python3 build/dev.py test")
    elif folders:
        terminalreporter.write_line(f"Left out, because it needs Linux: {folders}")


@pytest.fixture
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether to run at full length; otherwise a test takes at most 20 s."""
    return bool(request.config.getoption("soak"))


@pytest.fixture
def seed(soak: bool) -> int:
    """A seed for random choices, printed: PILOTLIGHT_SEED, else a new one in a soak and always the same elsewhere."""
    seed = int(os.environ.get("PILOTLIGHT_SEED") or (random.randrange(1 << 31) if soak else 1))  # noqa: S311
    print(f"PILOTLIGHT_SEED={seed}")
    return seed


def _left_out(config: pytest.Config) -> list[str]:
    if config.getoption("quick"):
        return NOT_QUICK
    return [] if sys.platform == "linux" else LINUX


def _place(item: pytest.Item) -> int:
    name = item.path.relative_to(HERE).parts[0]
    return FIRST.index(name) if name in FIRST else len(FIRST)


def _is_chosen(item: pytest.Item, config: pytest.Config) -> bool:
    if config.getoption("quick") and item.get_closest_marker("slow"):
        return False
    name = config.getoption("soak")
    return name is None or any(marker.args == (name,) for marker in item.iter_markers("soak"))

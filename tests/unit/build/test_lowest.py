"""The lower bounds of pyproject.toml: each dependency has one, and the environment of the lowest versions is those."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture
def lowest(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The scripts of `build/`, which is no package."""
    monkeypatch.syspath_prepend(ROOT / "build")
    import lowest as module

    yield module
    for name in ("lowest", "environment", "system_packages"):
        sys.modules.pop(name, None)


def test_each_dependency_is_there_once_at_its_lower_bound(lowest: ModuleType) -> None:
    fixed = lowest.lowest()
    names = [lowest.name_of(requirement) for requirement in fixed]
    assert len(names) == len(set(names)) > 15
    assert {lowest.name_of(one) for one in PROJECT["dependencies"]} <= set(names)
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+(;.*)?", requirement) for requirement in fixed)


@pytest.mark.parametrize(
    ("requirement", "fixed"),
    [
        ("torch>=2.6.0", "torch==2.6.0"),
        ("spacy>=3.8,<4", "spacy==3.8"),
        ("pystray==0.19.5", "pystray==0.19.5"),
        ("jeepney>=0.9; sys_platform == 'linux'", "jeepney==0.9; sys_platform == 'linux'"),
    ],
)
def test_the_lowest_version_of_a_requirement_is_its_only_one(lowest: ModuleType, requirement: str, fixed: str) -> None:
    assert lowest.at_lowest(requirement) == fixed


@pytest.mark.parametrize("requirement", ["types-psutil", "torch<3", "torch>2.5"])
def test_a_requirement_without_a_lowest_version_is_refused(lowest: ModuleType, requirement: str) -> None:
    with pytest.raises(lowest.SetupError, match="lowest version"):
        lowest.at_lowest(requirement)


def test_no_lower_bound_is_above_the_version_that_is_pinned(lowest: ModuleType) -> None:
    from importlib.metadata import version

    extras = PROJECT["optional-dependencies"]
    for requirement in [*lowest.lowest(), *map(lowest.at_lowest, extras["open-clip"])]:
        name, _, low = requirement.partition(";")[0].partition("==")
        try:
            pinned = lowest.environment.pinned(name)
        except lowest.SetupError:
            pinned = "9999" if name in ("sentencepiece", "protobuf") else version(name)
        assert _numbers(low) <= _numbers(pinned), requirement


def test_open_clip_is_tested_at_its_lower_bound_only(lowest: ModuleType) -> None:
    (requirement,) = PROJECT["optional-dependencies"]["open-clip"]
    low = lowest.at_lowest(requirement).partition("==")[2]
    assert lowest.environment.pinned("open-clip-torch").startswith(low)


def test_a_library_that_the_source_imports_by_itself_is_a_dependency_by_itself() -> None:
    imported = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "engine").rglob("*.py"))
    for module, name in {"huggingface_hub": "huggingface-hub", "transformers": "transformers"}.items():
        assert re.search(rf"^\s*(from|import) {module}\b", imported, re.MULTILINE)
        assert any(re.match(rf"{name}\b", one) for one in PROJECT["dependencies"])


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version.partition("+")[0])]

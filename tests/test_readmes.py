"""The pages in Markdown: their size, their links, and what they repeat of the sources."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import test_house

from engine import Config, parse
from engine.settings import config

ROOT = Path(__file__).parent.parent
PLACES = ("engine", "tray", "build", "tests", "assets", ".github")
FILES = sorted(
    path
    for path in [*ROOT.glob("*"), *(path for place in PLACES for path in (ROOT / place).rglob("*"))]
    if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
)
PAGES = [path for path in FILES if path.suffix == ".md"]

BESIDE = ("", "engine", "engine/adapters", "build")
"""Folders that a page may leave out before the name of a file."""

_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = _HEADING.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> Iterator[str]:
    for link in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield f"{name(page)}: {link}"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The scripts of `build/`, which is no package."""
    monkeypatch.syspath_prepend(ROOT / "build")
    import check_files
    import settings_table

    both = ModuleType("tool")
    both.problems, both.page, both.PAGE = check_files.problems, settings_table.page, settings_table.PAGE
    yield both
    for module in ("check_files", "settings_table"):
        del sys.modules[module]


def test_every_link_and_anchor_of_a_page_leads_somewhere() -> None:
    assert len(PAGES) > 20
    assert not [link for page in PAGES for link in broken(page)]


def test_the_first_page_is_short_and_has_both_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert 6_000 <= len(text.encode()) <= 8_000
    assert "python3 build/dev.py run " in text
    assert "python3 build/dev.py test " in text


def test_every_page_of_a_part_is_reached_from_the_first_one() -> None:
    reached, pending = set(), [ROOT / "README.md"]
    while pending:
        page = pending.pop().resolve()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        for link in _LINK.findall(page.read_text(encoding="utf-8")):
            if (target := page.parent / link.partition("#")[0]).is_file():
                pending.append(target)
    outside = {ROOT / ".github" / "pull_request_template.md", *(ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md")}
    assert {page.resolve() for page in PAGES} - reached == {page.resolve() for page in outside}


def named(cell: str) -> list[str]:
    """The names in backticks of one cell of a table."""
    return re.findall(r"`([^`]+)`", cell)


def test_the_table_of_imports_is_that_of_the_house_rules() -> None:
    text = (ROOT / "engine" / "README.md").read_text(encoding="utf-8")
    rows = text.partition("<!-- imports -->\n")[2].partition("<!-- /imports -->")[0].splitlines()[2:]
    cells = [row.strip("| ").split(" | ") for row in rows]
    assert {place: named(allowed) for places, allowed in cells for place in named(places)} == {
        place: allowed.split() for place, allowed in test_house.ALLOWED.items()
    }


def test_the_table_of_folders_names_all_that_is_there() -> None:
    text = (ROOT / "engine" / "README.md").read_text(encoding="utf-8")
    rows = text.partition("## Folders")[2].partition("\n\nThree")[0].splitlines()
    places = {place.rstrip("/") for row in rows if row.startswith("| `") for place in named(row.split("|")[1])}
    there = {path.name for path in (ROOT / "engine").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert places == there - {"__init__.py", "__main__.py", "__pycache__", "assets"}


def test_every_file_that_a_page_names_is_there() -> None:
    missing = []
    for page in PAGES:
        for path in named(_FENCE.sub("", page.read_text(encoding="utf-8"))):
            if re.fullmatch(r"[\w./-]+\.(py|toml|md|yml|txt)|(\w+/)+", path) and not re.search("KIND|NAME", path):
                folders = (page.parent, *(ROOT / folder for folder in BESIDE))
                missing += [] if any((folder / path).exists() for folder in folders) else [f"{name(page)}: {path}"]
    assert not missing


def test_the_table_of_settings_is_what_the_sources_say(tool: ModuleType) -> None:
    text = tool.PAGE.read_text(encoding="utf-8")
    assert text == tool.page(text), "run: .venv/bin/python build/settings_table.py"


def test_the_shipped_settings_file_has_every_key_with_its_default() -> None:
    text = (ROOT / "assets" / "settings.toml").read_text(encoding="utf-8")
    written, default = tomllib.loads(text), Config().as_mapping()
    for section in ("hardware", "server", "hub"):
        assert list(written[section]) == list(default[section])
    assert parse(written) == Config()
    known = (ROOT / "assets" / "known-models.toml").read_text(encoding="utf-8")
    keys = {key for key in config.EncoderConfig.__slots__ if key not in ("name", "part", "parts")}
    assert not {key for key in keys if not re.search(rf"\b{key}\b", text + known)}


def test_every_decision_says_why_and_what_it_costs() -> None:
    pages = sorted((ROOT / "engine" / "decisions").glob("[0-9]*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"# {page.name[:4]} "), page.name
        assert [text.count(f"\n**{part}.** ") for part in ("Context", "Choice", "What it costs")] == [1, 1, 1], (
            page.name
        )
        assert len(text.splitlines()) <= 14, page.name


def test_no_file_is_large_or_ends_without_a_line_break(tool: ModuleType) -> None:
    assert not list(tool.problems(FILES))


@pytest.mark.parametrize(
    ("content", "wrong"),
    [(b"", False), (b"a\n", False), (b"\x89PNG\0", False), (b"a", True), (b"a\n\n", True), (b"a\r\n\r\n", True)],
)
def test_a_file_that_ends_wrongly_is_found(tool: ModuleType, tmp_path: Path, content: bytes, wrong: bool) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    assert bool(list(tool.problems([file]))) is wrong
    file.write_bytes(b"a" * 600_000 + b"\n")
    assert list(tool.problems([file]))

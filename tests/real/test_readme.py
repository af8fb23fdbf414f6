"""The code blocks of the pages: commands, Python, settings and JSON, run against the real program."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from running import ROOT, USER_FOLDERS, Home, Running, wait_until

from engine import parse
from tray.cli.main import main

PAGES = ("README.md", "engine/adapters/README.md", "engine/http/README.md", "engine/settings/README.md")
"""Pages for users; those for developers have no blocks but commands of `dev.py`."""

PORT = "http://127.0.0.1:7458"
"""The address that the pages name; the app under test has one of its own."""

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_ANSWER = re.compile(r"\bprint\(.*\)  # (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One code block."""

    page: str
    language: str
    text: str


def blocks(language: str, *pages: str) -> list[Block]:
    found = []
    for page in pages or PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        found += [Block(page, *pair) for pair in _BLOCK.findall(text)]
    return [block for block in found if block.language == language]


def pages() -> list[Path]:
    """Every page of the repository; other folders may lie beside ours in a checkout."""
    places = (ROOT / place for place in ("engine", "tray", "build", "tests", "assets", ".github"))
    return [*ROOT.glob("*.md"), *(page for place in places for page in place.rglob("*.md"))]


def lines(*pages: str) -> list[list[str]]:
    """Every command line of the shell blocks, as words."""
    joined = [line for block in blocks("sh", *pages) for line in block.text.replace("\\\n", " ").splitlines()]
    return [words for line in joined if (words := shlex.split(line, comments=True))]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A Pilotlight of this file's own, because the commands of the pages change its settings."""
    running = Running(Home(tmp_path_factory.mktemp("readme")))
    yield running
    running.end()


@pytest.fixture
def user(started: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    """This process as a program of the same user."""
    for key in USER_FOLDERS:
        monkeypatch.setenv(key, started.home.environment[key])
    return started


def output(code: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})  # noqa: S102 - the pages are ours
    return printed.getvalue()


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.page)
def test_a_block_of_python_prints_what_it_says(user: Running, block: Block) -> None:
    printed = output(block.text.replace(PORT, user.url))
    assert printed.splitlines() == _ANSWER.findall(block.text)


def test_the_sizes_that_the_first_page_names_are_printed() -> None:
    assert [_ANSWER.findall(block.text) for block in blocks("python", "README.md")] == [["384"], ["(2, 384)"]]


def test_the_commands_of_the_pages_do_what_they_say(user: Running, capsys: pytest.CaptureFixture[str]) -> None:
    ran = []
    for program, *arguments in lines(*PAGES):
        if program == "pilotlight":
            ran.append(" ".join(arguments))
            assert main(arguments) == 0, arguments
            assert capsys.readouterr().out.strip(), arguments
        else:
            assert program in ("python3", "pip", "curl"), f"no test runs {program}"
    # Without a command it starts, or says where it runs already.
    assert {"", "status", "embed some text", "offload --all"} <= set(ran)
    added = tomllib.loads(user.home.settings.read_text(encoding="utf-8"))["encoders"]["bge-m3"]
    assert added == {"kind": "multi", "model": "BAAI/bge-m3"}
    wait_until(lambda: "bge-m3" in user.http.get("/v1/models").text, 10, "the added encoder is in force")
    assert user.home.contacted() <= {"127.0.0.1", "::1", "localhost"}, "no hub is asked before the first use"


def test_every_other_command_that_the_first_page_names_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"# also: (.+)", text)
    assert named
    for command in named[0].split(", "):
        help_ = [command.split()[0], "--help"]
        with pytest.raises(SystemExit) as ended, contextlib.redirect_stdout(io.StringIO()) as printed:
            main(help_)
        assert ended.value.code == 0
        assert command.split()[-1] in printed.getvalue()


def test_curl_gets_vectors(user: Running) -> None:
    (words,) = [words for words in lines("engine/http/README.md") if words[0] == "curl"]
    url, header, body = words[1], words[words.index("-H") + 1], words[words.index("-d") + 1]
    answer = httpx.post(url.replace(PORT, user.url), headers=dict([header.split(": ")]), content=body, timeout=60)
    assert [len(item["embedding"]) for item in answer.json()["data"]] == [384, 384]


@pytest.mark.parametrize("block", blocks("toml"), ids=lambda block: block.page)
def test_a_block_of_settings_is_accepted(block: Block) -> None:
    assert parse(tomllib.loads(block.text)).encoders


@pytest.mark.parametrize("block", blocks("json"), ids=lambda block: block.page)
def test_the_discovery_file_has_the_fields_of_the_page(started: Running, block: Block) -> None:
    written = json.loads(started.home.discovery.read_text(encoding="utf-8"))
    assert {key: type(value) for key, value in json.loads(block.text).items()} == {
        key: type(value) for key, value in written.items()
    }


def test_the_commands_of_dev_py_exist() -> None:
    command = [sys.executable, "build/dev.py", "--help"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages())
    named = re.findall(r"python3? build/dev\.py (\w+)((?: --[\w-]+)*)", text)
    assert {"run", "test"} <= {command for command, _ in named}
    missing = {word for command, options in named for word in (command, *options.split()) if word not in told}
    missing.discard("--")
    assert not missing
    assert all((ROOT / script).is_file() for script in re.findall(r"\bbuild/\w+\.py\b", text))


def test_what_pip_installs_has_the_names_of_the_pages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "pilotlight" in project["scripts"]
    text = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in (*PAGES, "build/README.md"))
    extras = set(re.findall(r"pip install '\.\[([\w-]+)\]'", text))
    assert {"linux-tray", "open-clip", "tag"} <= extras
    assert extras <= set(project["optional-dependencies"])

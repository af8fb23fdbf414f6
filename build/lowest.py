"""The virtual environment .venv-lowest: the lowest versions that pyproject.toml allows. Used by dev.py.

What those bring along comes at its newest version that fits, as pip installs it for a user who has the lowest ones.
The test tools come at the versions in constraints.txt. open_clip is left out: its lowest version is the pinned one.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import environment
from environment import PYTHON, ROOT, SetupError
from system_packages import say

VENV = ROOT / ".venv-lowest"
VENV_PYTHON = VENV / ("Scripts/python.exe" if environment.WINDOWS else "bin/python")
STAMP = VENV / "pilotlight-lowest.txt"
TESTS = ["tests/unit", "tests/real/test_every_kind.py"]
EXTRAS = ("tag", "sentencepiece", "tiktoken")
"""Extras that are installed too: an encoder of each kind needs the first one, the unit tests the last one."""


def set_up(gpu: str | None) -> None:
    """Make .venv-lowest, if it is not there or pyproject.toml names other versions than those in it."""
    wanted = [*lowest(), *test_tools()]
    record = "\n".join([PYTHON, gpu or "cpu", *wanted])
    if STAMP.exists() and STAMP.read_text() == record:
        return
    say(f"making {VENV.name} with Python {PYTHON}")
    if subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=False).returncode != 0:
        raise SetupError(f"could not make {VENV}: see above. Is a program from it still running?")
    python = str(VENV_PYTHON)
    build_tools = [f"{name}=={environment.pinned(name)}" for name in ("pip", "setuptools", "hatchling", "editables")]
    install("the build tools", *build_tools)
    (torch,) = (requirement for requirement in wanted if requirement.startswith("torch=="))
    environment.install_torch(gpu or "cpu", version=torch.partition("==")[2], python=python)
    # torch by its local version, because the index may have another build under the same version.
    found = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    (installed,) = (line for line in found.splitlines() if line.startswith("torch=="))
    others = [requirement for requirement in wanted if requirement != torch]
    install("the lowest versions of what the app needs, and the test tools", installed, *others)
    install("the app", "--no-build-isolation", "--no-deps", "--editable", str(ROOT))
    environment.install_aside(VENV / "litellm", *environment.ASIDE["litellm"], python=python)
    STAMP.write_text(record)


def install(what: str, *arguments: str) -> None:
    """Install into .venv-lowest; raises SetupError with the output of pip."""
    complaint = environment.pip(what, *arguments, python=str(VENV_PYTHON))
    if complaint:
        raise SetupError(f"pip could not install {what}:\n{complaint}\n{environment.NEXT}")


def lowest() -> list[str]:
    """Return every requirement of the app and of EXTRAS, fixed at its lowest version."""
    project = project_table()["project"]
    requirements = list(project["dependencies"])
    for extra in EXTRAS:
        requirements += project["optional-dependencies"][extra]
    return [at_lowest(requirement) for requirement in requirements]


def at_lowest(requirement: str) -> str:
    """Return a requirement with its lowest version as the only one; raises SetupError if it names none."""
    found = re.fullmatch(r"([\w.-]+)\s*(?:>=|==)\s*([\w.]+)[^;]*(;.*)?", requirement)
    if found is None:
        raise SetupError(f"pyproject.toml gives no lowest version for {requirement!r}: write NAME>=VERSION")
    name, version, marker = found.groups()
    return f"{name}=={version}{marker or ''}"


def test_tools() -> list[str]:
    """Return the requirements of the test group at their pinned versions, without what `lowest` has."""
    ours = {name_of(requirement) for requirement in lowest()}
    tools = [tool for tool in project_table()["dependency-groups"]["test"] if name_of(tool) not in ours]
    return [f"{name_of(tool)}=={environment.pinned(name_of(tool))}{marker_of(tool)}" for tool in tools]


def name_of(requirement: str) -> str:
    """Return the name of a requirement."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def marker_of(requirement: str) -> str:
    """Return the environment marker of a requirement with its semicolon, or nothing."""
    _, semicolon, marker = requirement.partition(";")
    return f"{semicolon}{marker}"


def project_table() -> dict:
    """Return pyproject.toml."""
    return tomllib.loads(Path(ROOT / "pyproject.toml").read_text(encoding="utf-8"))

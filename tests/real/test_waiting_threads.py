"""How the threads of a computation wait: the app chooses it before torch is imported, a host's process does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import plugin_packages
import pytest
from expected import importing_root
from running import ROOT, Home, Running

pytestmark = pytest.mark.slow

REPORTER = """\
import os, sys

AT_IMPORT = [os.environ.get("OMP_WAIT_POLICY"), "torch" in sys.modules]

class Reporter:
    def load(self):
        import torch

    def report(self):
        return AT_IMPORT
"""


def without_choice(environment: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if not key.startswith(("OMP_", "GOMP_", "KMP_"))}


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active"), ({"GOMP_SPINCOUNT": "9"}, None)],
)
def test_threads_of_the_app_sleep_while_they_wait_unless_the_user_chose(
    tmp_path: Path, chosen: dict[str, str], expected: str | None
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    plugin_packages.install(site, "reporting", REPORTER, entry="reporter = reporting:Reporter")
    home = Home(tmp_path / "home", '[encoders.reporter]\nkind = "plugin"\nmodel = "reporter"\n')
    home.environment["PYTHONPATH"] += f"{os.pathsep}{site}"
    home.environment = without_choice(home.environment) | chosen
    app = Running(home)
    try:
        answer = app.http.post("/encode/plugin", json={"operation": "report", "arguments": {}})
        assert json.dumps([expected, False]) in json.dumps(answer.json()), answer.text
    finally:
        app.end()


def test_an_engine_in_a_hosts_process_leaves_the_environment_alone() -> None:
    code = (
        "import os; before = dict(os.environ)\n"
        "from engine import Engine, parse\n"
        "with Engine(parse({'encoders': {'x': {'kind': 'dense', 'model': 'builtin:all-MiniLM-L6-v2'}}})) as engine:\n"
        "    engine.dense().encode(['a'])\n"
        "import sys; assert 'torch' in sys.modules\n"
        "print(sorted(key for key in os.environ if before.get(key) != os.environ[key]))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=without_choice(importing_root()),
        check=True,
        capture_output=True,
        text=True,
    )
    assert "OMP" not in run.stdout

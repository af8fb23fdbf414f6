"""What the system says after each step of the ladder: the engine's own figures must be the same."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from expected import importing_root
from running import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/smaps")

MIB = 2**20


def _report(task: str) -> Any:
    script = ROOT / "tests" / "real" / "given_back.py"
    run = subprocess.run(
        [sys.executable, str(script), task], cwd=ROOT, check=True, env=importing_root(), stdout=subprocess.PIPE
    )
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def steps() -> Any:
    return _report("steps")


def test_at_a_step_down_the_pages_leave_the_process(steps: Any) -> None:
    up, down = steps["up"], steps["down"]
    assert up["resident"] > 10 * MIB
    assert down["resident"] <= 0.05 * up["resident"]
    assert up["rss"] - down["rss"] >= 0.95 * up["resident"]
    assert down["mappings"] == up["mappings"] == 1


def test_what_the_engine_says_is_what_the_system_says(steps: Any) -> None:
    up, down = steps["up"], steps["down"]
    assert steps["bytes_on_device"] == pytest.approx(up["resident"], rel=0.05)
    assert steps["freed"] == pytest.approx(up["resident"] - down["resident"], rel=0.05)
    assert steps["bytes_total"] == pytest.approx(22_713_216 * 4, rel=0.001)


def test_after_an_unload_nothing_of_the_encoder_is_left(steps: Any) -> None:
    before, after = steps["before"], steps["after"]
    assert after["rss"] - before["rss"] <= 40 * MIB
    assert after["mappings"] == 0
    assert after["handles"] == before["handles"]


@pytest.mark.soak("cycles")
@pytest.mark.timeout(900)
def test_cycles_of_load_and_unload_leave_nothing_behind(soak: bool) -> None:
    count = 200 if soak else 40
    report = _report(str(count))
    tenth, last = report["history"][9], report["history"][-1]
    print(f"RSS after the tenth {tenth['rss'] / MIB:.1f} MiB, after the last {last['rss'] / MIB:.1f} MiB")
    assert report["equal"]
    assert report["loads"] == count + 1
    assert last["rss"] <= 1.03 * tenth["rss"]
    assert last["mappings"] == 0
    assert last["handles"] <= tenth["handles"]
    assert last["threads"] <= tenth["threads"]

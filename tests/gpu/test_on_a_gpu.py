"""The ladder on a real GPU, in a process of its own: where the fake device is registered nothing can be pinned."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import card
import pytest

CASES = Path(__file__).parent / "cases"


@pytest.mark.timeout(3600)
def test_every_case_holds_on_the_gpu_that_is_here(request: pytest.FixtureRequest) -> None:
    if not card.has_driver():
        pytest.skip("the NVIDIA driver is not installed")
    # A driver and a card warn about themselves, so warnings are no errors there.
    options = ["-v", "-s", "-rs", "--tb=short", "--durations=20", "-W", "default", "-p", "no:cacheprovider"]
    chosen = ["-k", words] if (words := request.config.getoption("keyword")) else []
    command = [sys.executable, "-u", "-m", "pytest", str(CASES), *options, *chosen]
    ended = subprocess.run(command, cwd=CASES.parents[2], check=False)
    if ended.returncode == card.NONE_HERE:
        pytest.skip("the cases found no GPU to use, and said why")
    assert ended.returncode != pytest.ExitCode.NO_TESTS_COLLECTED, f"no case fits -k {words!r}"
    assert ended.returncode == 0, "see what the cases said above"

"""The ladder on a real GPU, in a process of its own: where the fake device is registered nothing can be pinned."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import card
import pytest

CASES = Path(__file__).parent / "cases"


@pytest.mark.timeout(3600)
def test_every_case_holds_on_the_gpu_that_is_here() -> None:
    if reason := card.missing():
        pytest.skip(reason)
    # A driver and a card warn about themselves, so warnings are no errors there.
    options = ["-p", "no:cacheprovider", "-W", "default", "-rs", "--tb=short"]
    command = [sys.executable, "-m", "pytest", str(CASES), *options]
    ended = subprocess.run(command, cwd=CASES.parents[2], check=False)
    assert ended.returncode == 0, "see what the cases said above"

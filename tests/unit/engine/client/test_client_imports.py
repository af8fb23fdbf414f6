"""The client needs nothing beyond the standard library, so that any app can have it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent.parent.parent


def test_importing_the_client_needs_the_standard_library_alone() -> None:
    code = (
        "import sys, engine.client.client\n"
        "ours = {'engine', '__main__'}\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} - set(sys.stdlib_module_names) - ours))"
    )
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")

"""The cases need a process without the fake device, so this run leaves them to `test_on_a_gpu.py`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "build" / "bench"))  # card.py, models.py

collect_ignore = ["cases"]

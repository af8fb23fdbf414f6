"""open_clip's models through the engine, against the library called directly.

The library stands in a folder of its own, `.venv/open_clip`, which `build/dev.py` makes, and is on the path of a child
process alone: transformers would not import beside the torchvision that comes with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parents[1]
LIBRARY = Path(sys.prefix) / "open_clip"
CASES = {
    "a_plain_model": "both towers of a model with OpenAI's layout",
    "a_siglip": "both towers of a model with a text tower of its own and a bias",
    "a_pickled_model": "weights that come pickled",
    "a_timm_tower": "an image tower from timm",
    "of_two_types": "weights of two types, beside others",
    "weights_of_another_model": "weights that do not fit",
    "the_librarys_names": "names of architectures and weights",
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each case in `open_clip_child.py` came to: nothing, or its traceback."""
    assert (LIBRARY / "open_clip").is_dir(), f"{LIBRARY} holds no open_clip; `python build/dev.py test` puts it there"
    folder = tmp_path_factory.mktemp("open-clip")
    ours = {
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, TESTS, LIBRARY))),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    (folder / "models").mkdir()
    done = subprocess.run(
        [sys.executable, str(TESTS / "open_clip_child.py"), str(folder / "models")],
        cwd=ROOT,
        env=os.environ | ours,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("case", CASES, ids=CASES.values())
def test_what_the_engine_gives_is_what_open_clip_gives(results: dict[str, str], case: str) -> None:
    assert results[case] == "", results[case]


def test_every_case_is_looked_at(results: dict[str, str]) -> None:
    assert results.keys() == CASES.keys()

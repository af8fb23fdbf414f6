"""The memory of an encoder over many requests of different lengths: what their batches leave free goes back."""

from __future__ import annotations

import random
import string
import sys
from collections.abc import Iterator

import psutil
import pytest

from engine import Engine, parse
from engine.adapters.base import batches
from engine.weights import libc

MIB = 2**20
BUILT_IN = {"encoders": {"text": {"kind": "dense", "model": "builtin:all-MiniLM-L6-v2"}}, "hardware": {"device": "cpu"}}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the resident bytes of this process")


def requests(seed: int) -> Iterator[list[str]]:
    """Requests of 1 to 32 texts of 1 to 30 words, so that hardly two batches have one shape."""
    chance = random.Random(seed)  # noqa: S311
    word = lambda: "".join(chance.choices(string.ascii_lowercase, k=chance.randint(1, 12)))  # noqa: E731
    while True:
        yield [" ".join(word() for _ in range(chance.randint(1, 30))) for _ in range(chance.choice([1, 2, 3, 8, 32]))]


def private() -> int:
    """Bytes of this process in memory that are no pages of files."""
    memory = psutil.Process().memory_info()
    return memory.rss - memory.shared


@pytest.mark.slow
@pytest.mark.soak("shapes")
def test_what_batches_of_many_shapes_leave_free_goes_back(
    seed: int, soak: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    between = batches.BATCHES_PER_TRIM if soak else 8
    monkeypatch.setattr(batches, "BATCHES_PER_TRIM", between)
    resident: list[int] = []

    def trim() -> None:
        libc.trim_heap()
        resident.append(private())

    monkeypatch.setattr(batches, "trim_heap", trim)
    with Engine(parse(BUILT_IN)) as engine:
        asked = requests(seed)
        engine.dense().encode(next(asked))
        trim()
        for _ in range(3000 if soak else 32):
            engine.dense().encode(next(asked))
    print([round(one / MIB) for one in resident], "MiB")
    assert len(resident) >= (41 if soak else 5)
    if soak:  # a short run beside other programs says nothing: pages that a hole shares with something else stay
        # 32 KiB for the code of each shape, of which oneDNN keeps 1,024; and what holes a page cannot leave.
        assert resident[-1] - resident[0] < 64 * MIB

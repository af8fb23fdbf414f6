"""Every kind with torch weights on a real GPU: the CPU's results, before a step down and after it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from measured import Gpu
from torch_kinds import KINDS, Ask, engine_on

from engine import State

TEXTS, IMAGES = "texts of image_text", "images of image_text"
BOTH = "both towers of image_text"


def found_by(what: str) -> Ask:
    """Return the question to a kind; to the two towers both questions, one after the other."""
    asked = [KINDS[part][2] for part in ((TEXTS, IMAGES) if what == BOTH else (what,))]
    return lambda engine: [np.asarray(found) for ask in asked for found in ask(engine)]


@pytest.mark.parametrize("what", [*KINDS, BOTH])
def test_each_kind_computes_there_what_it_does_on_the_cpu_and_after_a_step_down_what_it_did_before(
    gpu: Gpu, tmp_path: Path, what: str
) -> None:
    kind, make, _ = KINDS[TEXTS if what == BOTH else what]
    ask = found_by(what)
    folder = make(tmp_path / "model")
    with engine_on("cpu", kind, folder) as engine:
        wanted = ask(engine)
    with engine_on(gpu.device, kind, folder) as engine:
        before = gpu.allocated()
        first = ask(engine)
        assert furthest(first, wanted) <= 1e-4
        up = [view for view in engine.views() if view.state is State.ON_DEVICE]
        assert len(up) == (2 if what == BOTH else 1)
        assert {view.device for view in up} == {gpu.device}
        held = [view.bytes_on_device or 0 for view in up]
        assert min(held) > 0
        high = gpu.allocated()
        assert high - before >= sum(held)
        for view in up:
            assert engine.offload(view.name).state is State.IN_RAM
        assert high - gpu.allocated() >= sum(held)
        second, third = ask(engine), ask(engine)
        assert {engine.view(view.name).device for view in up} == {gpu.device}
        print(f"{what}: {furthest(second, first):.1e} from the first use, {furthest(second, wanted):.1e} from the CPU")
        assert furthest(second, first) <= 1e-6
        assert furthest(third, second) == 0


def furthest(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """Return the largest difference of two numbers."""
    return max(float(np.abs(one - other).max()) for one, other in zip(found, wanted, strict=True))

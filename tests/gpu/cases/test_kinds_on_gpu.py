"""Every kind with torch weights on a real GPU: the CPU's results, and a step down that gives the bytes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from measured import Gpu
from torch_kinds import KINDS, engine_on

from engine import State


@pytest.mark.parametrize("what", KINDS)
def test_each_kind_computes_there_what_it_does_on_the_cpu_and_gives_its_bytes_back(
    gpu: Gpu, tmp_path: Path, what: str
) -> None:
    kind, make, ask = KINDS[what]
    folder = make(tmp_path / "model")
    with engine_on("cpu", kind, folder) as engine:
        wanted = ask(engine)
    with engine_on(gpu.device, kind, folder) as engine:
        before = gpu.allocated()
        for found, expected in zip(ask(engine), wanted, strict=True):
            assert np.abs(np.asarray(found) - np.asarray(expected)).max() <= 1e-4
        [up] = [view for view in engine.views() if view.state is State.ON_DEVICE]
        assert up.device == gpu.device
        assert up.bytes_on_device is not None
        assert gpu.allocated() - before >= up.bytes_on_device > 0
        assert engine.offload(up.name).state is State.IN_RAM
        first = ask(engine)
        assert all(np.array_equal(one, other) for one, other in zip(ask(engine), first, strict=True))

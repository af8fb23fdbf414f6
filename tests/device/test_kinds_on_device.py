"""Every kind with torch weights on a device that is not there: the CPU's results, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_device import Card
from torch_kinds import KINDS, engine_on

from engine import State


@pytest.mark.parametrize("what", KINDS)
def test_each_kind_computes_there_what_it_does_on_the_cpu_and_leaves_nothing(
    card: Card, tmp_path: Path, what: str
) -> None:
    kind, make, ask = KINDS[what]
    folder = make(tmp_path / "model")
    with engine_on("cpu", kind, folder) as engine:
        wanted = ask(engine)
    with engine_on("fakegpu:0", kind, folder) as engine:
        for found, expected in zip(ask(engine), wanted, strict=True):
            assert np.abs(np.asarray(found) - np.asarray(expected)).max() <= 1e-5
        [up] = [view for view in engine.views() if view.state is State.ON_DEVICE]
        assert (up.device, up.bytes_on_device) == ("fakegpu:0", card.live)
        assert card.live > 0
        assert engine.offload(up.name).state is State.IN_RAM
        assert card.live == 0
        again = ask(engine)
        assert all(np.array_equal(one, other) for one, other in zip(ask(engine), again, strict=True))
        assert engine.unload(up.name).state is State.UNLOADED
    assert card.live == 0

"""Models, engines and the judge on the real GPU that is here; without one every case is skipped."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import card
import pytest
from measured import MIB, Gpu
from subjects import NAME, Subject, subject_named

from engine import Config, EncoderConfig, Engine, Hardware, paths

WORKSPACE = 96 * MIB
"""What torch and cuBLAS may keep on the card for themselves after a first computation."""


@pytest.fixture(scope="session", autouse=True)
def gpu() -> Iterator[Gpu]:
    """The GPU with most free memory; what is converted for it goes with the session."""
    if reason := card.missing():
        pytest.exit(reason, returncode=0)  # these cases are never run together with others
    found = Gpu(card.pick())
    print(card.describe(found.device))
    with tempfile.TemporaryDirectory(prefix="pilotlight-gpu-") as cache, pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "cache_folder", lambda: Path(cache))
        yield found


@pytest.fixture(scope="session", params=["minilm", "xlm-r-large"])
def subject(request: pytest.FixtureRequest, gpu: Gpu) -> Subject:
    """The built-in model and one of 2.2 GB; a test may name others."""
    return subject_named(request.param, gpu)


@pytest.fixture
def start(gpu: Gpu) -> Iterator[Callable[..., Engine]]:
    """Starts an engine on the GPU with one encoder; fails a test after which more than workspace is left there."""
    gpu.lift_limit()
    before = gpu.allocated()
    with ExitStack() as ends:

        def begin(subject: Subject, encoder: dict[str, Any] | None = None, **hardware: Any) -> Engine:
            quiet = {"device": gpu.device, "idle_timeout_seconds": 0, "keep_free_vram": 0}
            config = EncoderConfig(name=NAME, kind="dense", model=subject.model, **(encoder or {}))
            settings = Hardware(**quiet | {"minimum_residency_seconds": 0} | hardware)
            return ends.enter_context(Engine(Config(hardware=settings, encoders=(config,))))

        yield begin
    gc.collect()
    gpu.empty_cache()
    assert gpu.allocated() - before <= WORKSPACE, "weights are left on the card"

"""Models, engines and NVML's figures on a real GPU; without one the run ends and says why."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import card
import pytest
from measured import MIB, Gpu
from subjects import Subject, engine_on, subject_named

from engine import Engine, paths

WORKSPACE = 96 * MIB
"""Bytes that torch and cuBLAS may keep on the card for themselves after a first computation."""


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Print each case's seconds as it ends, so that a run that is cut short has shown its results."""
    if report.when == "call" and report.passed:
        return "passed", ".", f"PASSED in {report.duration:.1f} s"
    return None


@pytest.fixture(scope="session", autouse=True)
def gpu() -> Iterator[Gpu]:
    """The GPU with most free memory; the folder of converted files goes with the session."""
    if reason := card.missing():
        pytest.exit(reason, returncode=card.NONE_HERE)  # these cases are never run together with others
    found = Gpu(card.pick())
    print(card.describe(found.device))
    with tempfile.TemporaryDirectory(prefix="pilotlight-gpu-") as cache, pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "cache_folder", lambda: Path(cache))
        yield found


@pytest.fixture(scope="session", params=["minilm", "xlm-r-large"])
def subject(request: pytest.FixtureRequest, gpu: Gpu) -> Subject:
    """The built-in model and one of 2.2 GB; a test may name others."""
    began = time.monotonic()
    found = subject_named(request.param, gpu)
    print(f"{request.param} is ready after {time.monotonic() - began:.1f} s")
    return found


@pytest.fixture
def start(gpu: Gpu) -> Iterator[Callable[..., Engine]]:
    """Starts an engine on the GPU with one encoder; fails a test after which more than workspace is left there."""
    gpu.lift_limit()
    before = gpu.allocated()
    with ExitStack() as ends:

        def begin(subject: Subject, encoder: dict[str, Any] | None = None, **hardware: Any) -> Engine:
            return ends.enter_context(engine_on(gpu, subject, encoder, **hardware))

        yield begin
    if gpu.allocated() - before > WORKSPACE:
        gc.collect()  # half a second with all the model libraries imported
    gpu.empty_cache()
    assert gpu.allocated() - before <= WORKSPACE, "weights are left on the card"

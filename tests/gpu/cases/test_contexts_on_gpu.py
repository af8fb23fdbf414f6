"""Contexts on GPUs that are not used, and a lost context; each case has a process that it may break."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from measured import Gpu
from subjects import NAME

ROOT = Path(__file__).parents[3]
MODEL = "builtin:all-MiniLM-L6-v2"
HOMES = ["mapped", "pinned"]
BEGIN = f"""
import sys, torch
from engine import Config, EncoderConfig, Engine, Hardware
device, home = sys.argv[1:]
hardware = Hardware(device=device, idle_timeout_seconds=0, minimum_residency_seconds=0, max_vram="2")
encoders = (EncoderConfig(name="{NAME}", kind="dense", model="{MODEL}", home=home),)
engine = Engine(Config(hardware=hardware, encoders=encoders))
wanted = engine.dense("{NAME}").encode(["a pilot light"])
"""
CYCLE = """
for _ in range(2):
    engine.offload("encoder")
    engine.dense("encoder").encode(["a pilot light"])
engine.close()
print([number for number in range(torch.cuda.device_count()) if torch._C._cuda_hasPrimaryContext(number)])
"""
LOSE = """
assert engine.view("encoder").device == device, engine.view("encoder")
try:
    torch.zeros(1, device=device)[torch.tensor([9], device=device)].cpu()
except RuntimeError as error:
    print(error, file=sys.stderr)
engine.offload("encoder")
again = engine.dense("encoder").encode(["a pilot light"])
print(engine.view("encoder").device, abs(again - wanted).max() < 1e-4, engine.view("encoder").note)
engine.close()
"""


def begin(script: str, device: str, home: str) -> subprocess.Popen[str]:
    """Start a script beside this process."""
    command = [sys.executable, "-c", script, device, home]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def said_by(process: subprocess.Popen[str]) -> str:
    """Return the output of a process when it has ended."""
    said, complaints = process.communicate(timeout=300)
    assert process.returncode == 0, complaints[-4000:]
    return said.strip()


@pytest.fixture(scope="module")
def losers(gpu: Gpu) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """A process for each home that loses its device, all at one time: most of it is importing torch."""
    processes = {home: begin(BEGIN + LOSE, gpu.device, home) for home in HOMES}
    yield processes
    for process in processes.values():
        process.kill()
        process.communicate()


@pytest.mark.parametrize("home", HOMES)
def test_only_the_gpu_in_use_gets_a_context(gpu: Gpu, home: str) -> None:
    last = torch.cuda.device_count() - 1
    if last == 0:
        pytest.skip("there is one GPU only")
    assert said_by(begin(BEGIN + CYCLE, f"cuda:{last}", home)) == f"[{last}]"


@pytest.mark.parametrize("home", HOMES)
def test_after_a_device_was_lost_the_cpu_answers(losers: dict[str, subprocess.Popen[str]], home: str) -> None:
    """An index outside a tensor ends the context, as a reset of the driver does."""
    where = said_by(losers[home])
    assert where.startswith("cpu True")
    assert "does not compute" in where

"""What a context costs and what becomes of a lost one; each case in a process of its own, which it may spoil."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from measured import Gpu
from subjects import NAME

ROOT = Path(__file__).parents[3]
MODEL = "builtin:all-MiniLM-L6-v2"
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


def said_by(script: str, device: str, home: str) -> str:
    """Run it beside this process and return what it prints."""
    command = [sys.executable, "-c", script, device, home]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-4000:]
    return ended.stdout.strip()


@pytest.mark.parametrize("home", ["mapped", "pinned"])
def test_only_the_gpu_in_use_gets_a_context(gpu: Gpu, home: str) -> None:
    last = torch.cuda.device_count() - 1
    if last == 0:
        pytest.skip("there is one GPU only")
    assert said_by(BEGIN + CYCLE, f"cuda:{last}", home) == f"[{last}]"


@pytest.mark.parametrize("home", ["mapped", "pinned"])
def test_after_a_device_was_lost_the_cpu_answers(gpu: Gpu, home: str) -> None:
    """An index outside a tensor ends the context, as a reset of the driver does."""
    where = said_by(BEGIN + LOSE, gpu.device, home)
    assert where.startswith("cpu True")
    assert "does not compute" in where

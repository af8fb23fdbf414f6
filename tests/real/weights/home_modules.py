"""Small modules, files for them, and readings of the mappings of this process."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from engine.weights.files.store import Store
from engine.weights.home import Home

Adopt = Callable[..., Home]


def seeded(module: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A module with the same random weights and running statistics every time."""
    torch.manual_seed(seed)
    made = module().eval()
    for buffer in made.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return made


def chain() -> nn.Module:
    """Parameters, buffers of two types, one of them without dimensions."""
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


def written(path: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, path)
    return path


def mappings(path: Path) -> list[tuple[int, int]]:
    """Where this process has the file mapped."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    ranges = [line.split(" ", 1)[0].split("-") for line in lines if line.endswith(f" {path}")]
    return [(int(start, 16), int(end, 16)) for start, end in ranges]


def lies_in(tensor: torch.Tensor, path: Path) -> bool:
    return any(start <= tensor.data_ptr() and tensor.data_ptr() + tensor.nbytes <= end for start, end in mappings(path))


def smaps(path: Path, field: str = "Rss") -> int:
    """Bytes that smaps counts for the mappings of a file."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = line.endswith(f" {path}")
        elif ours and line.startswith(f"{field}:"):
            total += int(line.split()[1]) * 1024
    return total


def converted(store: Store) -> list[Path]:
    return sorted(store._folder.glob("*")) if store._folder.exists() else []


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


class Aliased(nn.Module):
    """Parameters and a buffer that look at one piece of memory in different ways."""

    def __init__(self) -> None:
        super().__init__()
        fused = torch.randn(12, 6)
        self.fused = nn.Parameter(fused)
        self.again = nn.Parameter(self.fused.data)
        self.query = nn.Parameter(self.fused.data[:4])
        self.value = nn.Parameter(self.fused.data[8:])
        self.turned = nn.Parameter(self.fused.data.t())
        self.register_buffer("column", self.fused.data[:, 2])
        self.register_buffer("repeated", self.fused.data[3, 3].expand(5))

    def marked(self, row: int, column: int) -> float:
        """Write into one element through `fused`, and return what was written."""
        mark = 100.0 + row * 10 + column
        with torch.no_grad():
            self.fused[row, column] = mark
        return mark

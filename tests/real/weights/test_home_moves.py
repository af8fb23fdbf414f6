"""Moves of small modules between device, RAM and disk, and the pages that each move leaves."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
from pathlib import Path

import pytest
import torch
from home_modules import Adopt, bits, chain, converted, seeded, smaps, written
from torch import nn

from engine.devices.placement import CPU, Placement
from engine.errors import CannotRest
from engine.weights.files.store import Store

MIB = 1 << 20


HERE = Placement(CPU)


def rss() -> int:
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8")
    return int(rollup.partition("Rss:")[2].split()[0]) * 1024


# Moving


@pytest.fixture
def large(tmp_path: Path) -> tuple[nn.Module, Path]:
    """A module of 64 MiB and its file."""
    module = nn.Sequential(*(nn.Linear(2048, 2048, bias=False) for _ in range(4)))
    return module, written(tmp_path / "model.safetensors", module.state_dict())


def test_stepping_down_gives_the_memory_back_and_coming_up_takes_it_again(
    large: tuple[nn.Module, Path], adopt: Adopt
) -> None:
    module, file = large
    home = adopt(module, file)
    assert smaps(file) <= 0.05 * 64 * MIB, "adoption itself leaves no pages behind"
    inputs = torch.randn(2, 2048)
    for _ in range(2):
        home.to_device(HERE)
        with torch.inference_mode():
            first = bits(module(inputs))
        up, held, figures = rss(), smaps(file), home.footprint()
        assert held >= 64 * MIB
        assert abs(figures.on_device - held) <= 0.05 * held
        assert figures.in_ram == 0
        assert home.total == figures.total == 64 * MIB
        home.offload()
        down, left, figures = rss(), smaps(file), home.footprint()
        assert left <= 0.05 * held
        assert figures.on_device == 0
        assert abs(figures.in_ram - left) <= 0.05 * held
        assert up - down >= 0.95 * held
        home.to_device(HERE)
        with torch.inference_mode():
            assert bits(module(inputs)) == first


def test_faulting_in_reads_every_page(large: tuple[nn.Module, Path], adopt: Adopt) -> None:
    module, file = large
    home = adopt(module, file)
    home.fault_in()
    assert smaps(file) >= 64 * MIB
    assert home.footprint().in_ram >= 64 * MIB
    assert home.footprint().on_device == 0
    assert smaps(file, "Anonymous") == 0


def test_looking_touches_no_page(large: tuple[nn.Module, Path], adopt: Adopt) -> None:
    module, file = large
    home = adopt(module, file)
    before = smaps(file)
    for _ in range(3):
        home.footprint()
        home.stale()
        home.remains()
    assert smaps(file) == before


# A home on disk


def cached(path: Path) -> bool:
    """Whether the system has a page of a file in its cache. Source: mincore(2), which reads nothing itself."""
    size = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as memory:
        first = ctypes.c_char.from_buffer(memory)
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        assert ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), pages) == 0
        del first
    return any(page & 1 for page in pages)


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_a_home_on_disk_leaves_nothing_in_ram_not_even_the_systems_cache(
    tmp_path: Path, adopt: Adopt, store: Store, dtype: str
) -> None:
    module = seeded(chain)
    file = written(tmp_path / "model.safetensors", module.state_dict())
    os.sync()
    home = adopt(module, file, keep="disk", dtype=dtype)
    assert home.cannot_rest == "Its home is the disk, so stepping down unloads it."
    home.to_device(HERE)
    with torch.inference_mode():
        module(torch.randn(2, 8, dtype=module[0].weight.dtype))
    with pytest.raises(CannotRest, match="Its home is the disk"):
        home.offload()
    home.close()
    files = [file, *converted(store)]
    home.forget_files()
    assert all(cached(path) for path in files), "it is still in use"
    del module
    gc.collect()
    assert home.gone
    home.forget_files()
    assert not [path.name for path in files if cached(path)]


def test_a_home_in_files_leaves_the_systems_cache_alone(tmp_path: Path, adopt: Adopt) -> None:
    module = seeded(chain)
    file = written(tmp_path / "model.safetensors", module.state_dict())
    os.sync()
    home = adopt(module, file)
    home.close()
    del module
    gc.collect()
    home.forget_files()
    assert cached(file)


# In less RAM than it takes


class Tower(nn.Module):
    """Blocks that stand in one list."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(512, 512) for _ in range(6))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Run one block after the other."""
        for block in self.blocks:
            inputs = torch.relu(block(inputs))
        return inputs


def test_blocks_give_their_pages_back_where_they_are_streamed_on_a_cpu(tmp_path: Path, adopt: Adopt) -> None:
    module, inputs = seeded(Tower), torch.randn(3, 512)
    file = written(tmp_path / "model.safetensors", module.state_dict())
    with torch.inference_mode():
        wanted = module(inputs)
        home = adopt(module, file)
        whole, least = home.needs()
        assert least is not None
        assert home.to_device(Placement(CPU, least, "for a test")) is not None
        assert torch.equal(module(inputs), wanted)
        assert smaps(file) < whole / 2
        home.offload()
        assert home.to_device(HERE) is None
        assert torch.equal(module(inputs), wanted)
        assert smaps(file) > 0.9 * whole

"""Modules that cannot rest in RAM, and homes that let go or fail half-way."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from home_modules import Adopt, bits, chain, converted, mappings, seeded, smaps, wide, written
from torch import nn

from engine.devices.placement import CPU, Placement
from engine.errors import CannotRest, LoadFailed
from engine.weights.files.identity import Identity
from engine.weights.files.store import Entry, Store
from engine.weights.home import Home
from engine.weights.home_request import HomeRequest

HERE = Placement(CPU)


# What cannot rest


class Strange(torch.Tensor):
    """A tensor whose memory belongs to its library alone."""


def _with_meta(module: nn.Module) -> None:
    module.extra = nn.Parameter(torch.empty(3, 3, device="meta"))


def _with_subclass(module: nn.Module) -> None:
    module.extra = nn.Parameter(torch.randn(3, 3).as_subclass(Strange))


def _with_sparse(module: nn.Module) -> None:
    module.register_buffer("extra", torch.eye(3).to_sparse())


def _with_complex(module: nn.Module) -> None:
    module.extra = nn.Parameter(torch.randn(3, 3, dtype=torch.complex64))


@pytest.mark.parametrize("add", [_with_meta, _with_subclass, _with_sparse, _with_complex])
def test_a_module_with_weights_that_no_file_can_hold_says_so_and_works(
    add: Callable[[nn.Module], None], tmp_path: Path, adopt: Adopt
) -> None:
    module = seeded(chain)
    file = written(tmp_path / "model.safetensors", module.state_dict())
    inputs = torch.randn(3, 8)
    with torch.inference_mode():
        before = bits(module(inputs))
    add(module)
    extra = module.extra
    home = adopt(module, file)
    assert home.cannot_rest is not None
    assert "extra" in home.cannot_rest
    assert "when idle it is unloaded" in home.cannot_rest
    home.to_device(HERE)
    with torch.inference_mode():
        assert bits(module(inputs)) == before
        with pytest.raises(CannotRest, match="extra"):
            home.offload()
        assert bits(module(inputs)) == before
    assert module.extra is extra
    assert extra.device.type in ("cpu", "meta")


def test_a_module_without_files_says_so_and_works(adopt: Adopt) -> None:
    module = seeded(chain)
    inputs = torch.randn(3, 8)
    with torch.inference_mode():
        before = bits(module(inputs))
        home = adopt(module)
        assert bits(module(inputs)) == before
        assert home.cannot_rest is not None
        assert "no weights file" in home.cannot_rest
        with pytest.raises(CannotRest):
            home.offload()
        assert bits(module(inputs)) == before
    home.to_device(HERE)
    assert home.footprint().on_device == home.total == sum(t.nbytes for t in module.state_dict().values())


@pytest.mark.parametrize("full", [{"limit_bytes": 500}, {"reserve_bytes": 1 << 60}], ids=["limit", "disk"])
def test_a_full_disk_leaves_the_weights_in_plain_memory_and_says_so(
    full: dict[str, int], tmp_path: Path, adopt: Adopt
) -> None:
    module = seeded(chain).half()
    file = written(tmp_path / "model.safetensors", module.state_dict())
    wanted = {name: tensor.to(wide(tensor.dtype)) for name, tensor in module.state_dict().items()}
    kept = Store(tmp_path / "full", **full)
    home = adopt(module, file, kept=kept)
    assert home.cannot_rest is not None
    assert "MiB" in home.cannot_rest
    assert "when idle it is unloaded" in home.cannot_rest
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in module.state_dict().items())
    assert not converted(kept)
    home.to_device(HERE)
    with torch.inference_mode():
        assert module(torch.randn(3, 8)).dtype is torch.float32
    with pytest.raises(CannotRest, match="plain memory"):
        home.offload()
    assert home.footprint().on_device >= sum(parameter.nbytes for parameter in module.parameters())


# Letting go


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_no_mapping_remains_once_home_and_module_are_gone(
    tmp_path: Path, adopt: Adopt, store: Store, dtype: torch.dtype
) -> None:
    module = seeded(chain).to(dtype)
    file = written(tmp_path / "model.safetensors", module.state_dict())
    home = adopt(module, file)
    ours = [file, *converted(store)]
    home.to_device(HERE)
    with torch.inference_mode():
        module(torch.randn(2, 8))
    assert all(mappings(path) for path in ours)
    home.close()
    del module
    gc.collect()
    assert not any(mappings(path) for path in ours)
    assert home.remains() == 0


def test_a_parameter_that_somebody_keeps_is_told(tmp_path: Path, adopt: Adopt) -> None:
    module = seeded(chain)
    file = written(tmp_path / "model.safetensors", module.state_dict())
    home = adopt(module, file)
    home.to_device(HERE)
    with torch.inference_mode():
        module(torch.randn(2, 8))
    kept = module[3].weight
    wanted = bits(kept)
    home.close()
    del module
    gc.collect()
    assert mappings(file)
    assert home.remains() == smaps(file) > 0
    assert bits(kept) == wanted
    del kept
    assert home.remains() == 0
    assert not mappings(file)


def test_a_converted_file_may_be_removed_once_its_home_is_closed(tmp_path: Path) -> None:
    one = Store(tmp_path / "store", limit_bytes=2500)
    homes = []
    for number in range(2):
        module = seeded(chain, number).half()
        file = written(tmp_path / f"{number}.safetensors", module.state_dict())
        homes.append(Home(module, one, HomeRequest(sources=(Identity.of(file),), device="cpu", made_by="a test")))
        assert len(converted(one)) == 1
        if number == 0:
            homes[0].close()
    assert [home.cannot_rest for home in homes] == [None, None]


class Meddled(Store):
    """A store during whose write the source is changed."""

    def __init__(self, folder: Path, source: Path) -> None:
        super().__init__(folder)
        self.source = source

    def provide(self, key: str, entries: Sequence[Entry]) -> Path:
        """Provide, and touch the source meanwhile."""
        path = super().provide(key, entries)
        os.utime(self.source, ns=(1, 1))
        return path


def test_a_home_that_could_not_be_made_holds_no_converted_file(tmp_path: Path) -> None:
    module = seeded(chain).half()
    file = written(tmp_path / "model.safetensors", module.state_dict())
    meddled = Meddled(tmp_path / "store", file)
    with pytest.raises(LoadFailed, match="was changed while it was read"):
        Home(module, meddled, HomeRequest(sources=(Identity.of(file),), device="cpu", made_by="a test"))
    (ours,) = converted(meddled)
    with pytest.raises(ValueError, match="not in use"):
        meddled.release(ours)


def test_a_write_into_plain_memory_is_kept(tmp_path: Path, adopt: Adopt) -> None:
    module = seeded(chain)
    file = written(tmp_path / "model.safetensors", {key: value.half() for key, value in module.state_dict().items()})
    module.half()
    full = Store(tmp_path / "full", limit_bytes=1)
    home = adopt(module, file, kept=full)
    assert home.cannot_rest is not None
    assert home.writes() == {}
    with torch.no_grad():
        module[0].weight[0, 0] = 7
    again = seeded(chain).half()
    other = adopt(again, file, kept=full)
    other.restore(home.writes())
    assert again[0].weight[0, 0] == 7
    assert torch.equal(again[0].weight, module[0].weight)


def test_other_data_behind_a_parameter_is_kept(tmp_path: Path, adopt: Adopt) -> None:
    module = seeded(chain)
    file = written(tmp_path / "model.safetensors", module.state_dict())
    home = adopt(module, file)
    module[0].weight.data = module[0].weight.data + 0.5
    again = seeded(chain)
    other = adopt(again, file)
    assert not torch.equal(again[0].weight, module[0].weight)
    other.restore(home.writes())
    assert torch.equal(again[0].weight, module[0].weight)

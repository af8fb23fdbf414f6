"""Modules that write into their weights, and weights files that change."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from home_modules import Adopt, Aliased, bits, chain, converted, seeded, written

from engine.devices.placement import CPU, Placement
from engine.errors import CannotRest, LoadFailed
from engine.weights.files.identity import Identity
from engine.weights.files.store import Store
from engine.weights.home import Home
from engine.weights.home_request import HomeRequest

HERE = Placement(CPU)


# Writing


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_one_element_written_keeps_the_weights_up_and_its_value(
    tmp_path: Path, adopt: Adopt, dtype: torch.dtype
) -> None:
    file = written(tmp_path / "model.safetensors", seeded(chain).to(dtype).state_dict())
    content = file.read_bytes()
    module = seeded(chain).to(dtype)
    home = adopt(module, file)
    home.to_device(HERE)
    home.offload()
    home.to_device(HERE)
    with torch.no_grad():
        module[3].weight[2, 5] = 42
    wanted = {name: bits(tensor) for name, tensor in module.state_dict().items()}
    with pytest.raises(CannotRest, match="writes into its own weights"):
        home.offload()
    assert module[3].weight[2, 5] == 42, "nothing was given back"
    assert home.cannot_rest is not None
    writes = home.writes()
    assert list(writes) == ["3.weight"]
    home.close()
    del home

    fresh = seeded(chain).to(dtype)
    again = adopt(fresh, file)
    assert fresh[3].weight[2, 5] != 42
    again.restore(writes)
    again.to_device(HERE)
    assert {name: bits(tensor) for name, tensor in fresh.state_dict().items()} == wanted
    with pytest.raises(CannotRest):
        again.offload()
    assert list(again.writes()) == ["3.weight"]
    assert file.read_bytes() == content, "the file itself is never written"


def test_every_tensor_that_was_written_into_is_kept_and_no_other(tmp_path: Path, adopt: Adopt) -> None:
    module = seeded(chain)
    file = written(tmp_path / "model.safetensors", module.state_dict())
    home = adopt(module, file)
    with torch.no_grad():
        module[0].bias[0] += 1
    module[1].num_batches_tracked += 3
    assert set(home.writes()) == {"0.bias", "1.num_batches_tracked"}
    kept = home.writes()
    with torch.no_grad():
        module[0].bias[0] += 1
    assert kept["0.bias"][0] != module[0].bias[0], "a copy"


def test_a_write_through_an_alias_is_kept(tmp_path: Path, adopt: Adopt) -> None:
    torch.manual_seed(0)
    module = Aliased()
    file = written(tmp_path / "model.safetensors", {"fused": module.fused})
    home = adopt(module, file)
    with torch.no_grad():
        module.turned[1, 10] = 5
    writes = home.writes()
    torch.manual_seed(0)
    fresh = Aliased()
    again = adopt(fresh, file)
    again.restore(writes)
    assert fresh.fused[10, 1] == fresh.value[2, 1] == 5


def test_a_module_that_wrote_what_was_there_lost_nothing(tmp_path: Path, adopt: Adopt) -> None:
    module = seeded(chain)
    home = adopt(module, written(tmp_path / "model.safetensors", module.state_dict()))
    with torch.no_grad():
        module[0].weight.copy_(module[0].weight.clone())
    assert home.writes() == {}


def test_writes_into_files_that_changed_are_forgotten(tmp_path: Path, adopt: Adopt) -> None:
    module = seeded(chain)
    file = written(tmp_path / "model.safetensors", module.state_dict())
    home = adopt(module, file)
    with torch.no_grad():
        module[0].weight[0] = 1
    assert home.writes()
    os.utime(file, ns=(0, 0))
    assert home.writes() == {}
    file.unlink()
    assert home.writes() == {}


# Files that change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: os.utime(file, ns=(1, 1)), "was changed"),
        (lambda file: os.truncate(file, 100), "was changed"),
        (lambda file: file.unlink(), "was deleted"),
        (lambda file: written(file.with_name("new"), seeded(chain, 1).state_dict()).replace(file), "was replaced"),
    ],
    ids=["touched", "truncated", "deleted", "replaced"],
)
def test_a_change_of_the_file_is_noticed(
    change: Callable[[Path], Any], said: str, tmp_path: Path, adopt: Adopt
) -> None:
    module = seeded(chain)
    file = written(tmp_path / "model.safetensors", module.state_dict())
    before = Identity.of(file)
    home = adopt(module, file)
    assert home.stale() is None
    change(file)
    assert home.stale() == f"{file} {said}"
    request = HomeRequest(sources=(before,), device="cpu", made_by="a test")
    with pytest.raises(LoadFailed, match="while it was read"):
        Home(seeded(chain), Store(tmp_path / "other"), request)


def test_a_change_of_the_converted_file_is_noticed(tmp_path: Path, adopt: Adopt, store: Store) -> None:
    module = seeded(chain).half()
    home = adopt(module, written(tmp_path / "model.safetensors", module.state_dict()))
    (ours,) = converted(store)
    assert home.stale() is None
    ours.unlink()
    assert home.stale() == f"{ours} was deleted"

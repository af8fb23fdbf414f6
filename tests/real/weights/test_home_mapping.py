"""Tensors of small modules that become views of real files, tied and aliased ones included."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from home_modules import Adopt, Aliased, bits, chain, converted, lies_in, seeded, written
from torch import nn

from engine.devices.placement import CPU, Placement
from engine.weights.files.store import Store

HERE = Placement(CPU)


# What becomes a view, and of which file


def test_every_parameter_and_persistent_buffer_becomes_a_view_of_the_file(tmp_path: Path, adopt: Adopt) -> None:
    module = seeded(chain)
    module.register_buffer("scratch", torch.arange(4.0), persistent=False)
    file = written(tmp_path / "model.safetensors", module.state_dict())
    scratch, address = module.get_buffer("scratch"), module.get_buffer("scratch").data_ptr()
    home = adopt(module, file)
    state = module.state_dict(keep_vars=True)
    assert len(state) == 9
    assert all(lies_in(tensor, file) for tensor in state.values())
    assert len({tensor.data_ptr() for tensor in state.values()}) == 9
    assert module.get_buffer("scratch") is scratch
    assert scratch.data_ptr() == address
    assert home.cannot_rest is None
    assert home.total == sum(tensor.nbytes for tensor in state.values()) + scratch.nbytes


def test_the_objects_that_others_hold_stay_the_parameters(tmp_path: Path, adopt: Adopt) -> None:
    module = seeded(chain)
    before = [*module.parameters(), *module.buffers()]
    gradients = [tensor.requires_grad for tensor in before]
    adopt(module, written(tmp_path / "model.safetensors", module.state_dict()))
    after = [*module.parameters(), *module.buffers()]
    assert all(old is new for old, new in zip(before, after, strict=True))
    assert [tensor.requires_grad for tensor in after] == gradients


def test_outputs_are_bit_identical_after_adoption_and_after_every_way_down_and_up(tmp_path: Path, adopt: Adopt) -> None:
    module = seeded(chain)
    inputs = torch.randn(5, 8)
    with torch.inference_mode():
        before = bits(module(inputs))
        home = adopt(module, written(tmp_path / "model.safetensors", module.state_dict()))
        assert bits(module(inputs)) == before
        for _ in range(2):
            home.to_device(HERE)
            assert bits(module(inputs)) == before
            home.offload()
        home.to_device(HERE)
        assert bits(module(inputs)) == before


def test_shards_each_hold_their_own(tmp_path: Path, adopt: Adopt) -> None:
    module = seeded(chain)
    state = module.state_dict()
    names = sorted(state)
    shards = [
        written(tmp_path / f"model-{i}.safetensors", {name: state[name] for name in names[i::3]}) for i in range(3)
    ]
    home = adopt(module, *shards)
    for i, shard in enumerate(shards):
        assert all(lies_in(module.state_dict()[name], shard) for name in names[i::3])
    assert home.cannot_rest is None


def test_a_file_that_holds_more_than_the_module_serves_all_the_same(tmp_path: Path, adopt: Adopt) -> None:
    module = seeded(chain)
    decoys = {"before": torch.randn(16, 8), "zz.weight": torch.randn(16, 8), "other": torch.zeros(3)}
    file = written(tmp_path / "model.safetensors", {**module.state_dict(), **decoys})
    wanted = {name: bits(tensor) for name, tensor in module.state_dict().items()}
    adopt(module, file)
    assert {name: bits(tensor) for name, tensor in module.state_dict().items()} == wanted
    assert all(lies_in(tensor, file) for tensor in module.state_dict().values())


def test_names_that_the_library_changed_are_found_by_content(tmp_path: Path, adopt: Adopt, store: Store) -> None:
    module = nn.ModuleDict({"first": nn.LayerNorm(32), "second": nn.LayerNorm(32)})
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    old = {"weight": "gamma", "bias": "beta"}
    renamed = {
        f"bert.encoder.LayerNorm_{name.split('.')[0]}.{old[name.split('.')[1]]}": tensor
        for name, tensor in module.state_dict().items()
    }
    file = written(tmp_path / "model.safetensors", renamed)
    wanted = [bits(tensor) for tensor in module.parameters()]
    home = adopt(module, file)
    assert [bits(tensor) for tensor in module.parameters()] == wanted
    assert all(lies_in(tensor, file) for tensor in module.parameters())
    assert home.locations["first.weight"] == (file, "bert.encoder.LayerNorm_first.gamma")
    assert not converted(store)


def test_two_that_are_equal_by_chance_do_not_become_one(tmp_path: Path, adopt: Adopt) -> None:
    module = nn.Sequential(nn.LayerNorm(64), nn.LayerNorm(64))  # every weight 1, every bias 0
    file = written(tmp_path / "model.safetensors", module.state_dict())
    adopt(module, file)
    assert len({tensor.data_ptr() for tensor in module.parameters()}) == 4
    with torch.no_grad():
        module[0].weight[5] = 7
    assert module[0].weight[5] == 7
    assert module[1].weight[5] == 1


def test_one_that_equals_a_tensor_taken_already_gets_a_file_of_its_own(
    tmp_path: Path, adopt: Adopt, store: Store
) -> None:
    first = nn.LayerNorm(64).state_dict()
    file = written(tmp_path / "model.safetensors", {f"0.{name}": tensor for name, tensor in first.items()})
    for _ in range(5):  # wherever the allocator put them
        module = nn.Sequential(nn.LayerNorm(64), nn.LayerNorm(64))
        home = adopt(module, file)
        (ours,) = converted(store)
        assert all(lies_in(tensor, file) for tensor in module[0].parameters())
        assert all(lies_in(tensor, ours) for tensor in module[1].parameters())
        assert len({tensor.data_ptr() for tensor in module.parameters()}) == 4
        assert home.cannot_rest is None


def test_nan_weights_are_found_by_their_bits(tmp_path: Path, adopt: Adopt, store: Store) -> None:
    module = seeded(chain)
    with torch.no_grad():
        module[0].weight[1] = torch.nan
        module[3].bias[:] = -torch.nan
    file = written(tmp_path / "model.safetensors", module.state_dict())
    adopt(module, file)
    assert all(lies_in(tensor, file) for tensor in module.state_dict().values())
    assert module[0].weight.isnan().sum() == 8
    assert not converted(store)


def test_minus_zero_is_not_zero(tmp_path: Path, adopt: Adopt) -> None:
    module = nn.LayerNorm(8)
    file = written(tmp_path / "model.safetensors", {"weight": module.weight, "bias": -module.bias})
    adopt(module, file)
    assert not lies_in(module.bias, file)
    assert not module.bias.signbit().any()


def test_empty_tensors_and_those_without_dimensions_stay_what_they_are(tmp_path: Path, adopt: Adopt) -> None:
    module = nn.Module()
    module.scale = nn.Parameter(torch.tensor(2.5))
    module.nothing = nn.Parameter(torch.empty(0, 4))
    module.register_buffer("steps", torch.tensor(7))
    module.register_buffer("flag", torch.tensor([True, False, True]))
    file = written(tmp_path / "model.safetensors", module.state_dict())
    home = adopt(module, file)
    home.to_device(HERE)
    home.offload()
    home.to_device(HERE)
    assert all(lies_in(tensor, file) for tensor in (module.scale, module.steps, module.flag))
    assert module.scale.shape == module.steps.shape == ()
    assert (module.scale.item(), module.steps.item(), module.flag.tolist()) == (2.5, 7, [True, False, True])
    assert module.nothing.shape == (0, 4)


# Tied and aliased


class Tied(nn.Module):
    """One Parameter under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embedding.weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("names", [["embedding.weight"], ["head.weight"], ["embedding.weight", "head.weight"]])
def test_tied_parameters_stay_one(tmp_path: Path, adopt: Adopt, dtype: torch.dtype, names: list[str]) -> None:
    module = seeded(Tied).to(dtype)
    file = written(tmp_path / "model.safetensors", dict.fromkeys(names, module.embedding.weight))
    wanted = bits(module.head.weight.float())
    home = adopt(module, file)
    assert module.embedding.weight is module.head.weight
    assert bits(module.head.weight) == wanted
    assert home.total == 20 * 8 * 4
    with torch.no_grad():
        module.embedding.weight[3, 3] = 9
    assert module.head.weight[3, 3] == 9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_aliases_look_at_the_same_memory_still(tmp_path: Path, adopt: Adopt, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module = Aliased()
    state = {"fused": module.fused.to(dtype)}
    with torch.no_grad():
        module.fused.copy_(state["fused"])
    if dtype is torch.float16:
        module = module.half()
        module.fused.data = state["fused"].data  # `half` unties them
        for name in ("again", "query", "value", "turned", "column", "repeated"):
            getattr(module, name).data = _view(module.fused.data, name)
    file = written(tmp_path / "model.safetensors", state)
    wanted = {name: bits(tensor.float()) for name, tensor in module.state_dict().items()}
    home = adopt(module, file)
    home.to_device(HERE)
    home.offload()
    home.to_device(HERE)
    assert {name: bits(tensor) for name, tensor in module.state_dict().items()} == wanted
    assert home.total == 12 * 6 * 4
    assert len(home.locations) == 1
    assert lies_in(module.fused, file) is (dtype is torch.float32)
    mark = module.marked(3, 3)
    assert module.again[3, 3] == module.query[3, 3] == module.turned[3, 3] == mark
    assert module.repeated.tolist() == [mark] * 5
    mark = module.marked(9, 2)
    assert module.value[1, 2] == module.column[9] == mark


def _view(fused: torch.Tensor, name: str) -> torch.Tensor:
    views = {"again": fused, "query": fused[:4], "value": fused[8:], "turned": fused.t(), "column": fused[:, 2]}
    return views[name] if name in views else fused[3, 3].expand(5)


def test_slices_that_meet_but_do_not_overlap_are_found_where_the_file_has_them(tmp_path: Path, adopt: Adopt) -> None:
    torch.manual_seed(0)
    whole = torch.randn(3, 16)
    module = nn.Module()
    for name, part in zip(("query", "key", "value"), whole, strict=True):
        module.register_parameter(name, nn.Parameter(part))
    file = written(tmp_path / "model.safetensors", module.state_dict())
    adopt(module, file)
    assert all(lies_in(parameter, file) for parameter in module.parameters())
    assert torch.equal(torch.stack(list(module.parameters())), whole)

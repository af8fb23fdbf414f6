"""Tensors that need a converted file of our own, and what the next home reuses of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from home_modules import Adopt, bits, chain, converted, lies_in, mappings, seeded, wide, written
from torch import nn

from engine.devices.placement import CPU, Placement
from engine.weights.files.identity import Identity
from engine.weights.files.store import Store
from engine.weights.home import Home
from engine.weights.home_request import HomeRequest

HERE = Placement(CPU)


def by_hand(path: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    """A safetensors file with its tensors in this order and with no padding anywhere."""
    spelled = {torch.float32: "F32", torch.uint8: "U8"}
    header, body = {}, b""
    for name, tensor in tensors.items():
        data = tensor.detach().contiguous().numpy().tobytes()
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": spelled[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


# What needs a file of our own


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_computes_as_float32_on_a_cpu_from_a_file_converted_once(
    tmp_path: Path, adopt: Adopt, store: Store, dtype: torch.dtype
) -> None:
    module = seeded(chain).to(dtype)
    module.register_buffer("scratch", torch.arange(4.0).to(dtype), persistent=False)
    wanted = {name: tensor.to(wide(tensor.dtype)) for name, tensor in module.state_dict().items()}
    file = written(tmp_path / "model.safetensors", module.state_dict())
    other = copy.deepcopy(module)

    home = adopt(module, file)
    (ours,) = converted(store)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in module.state_dict().items())
    assert all(parameter.dtype is torch.float32 for parameter in module.parameters())
    assert all(lies_in(parameter, ours) for parameter in module.parameters())
    assert module.get_buffer("scratch").dtype is torch.float32
    assert home.cannot_rest is None
    assert lies_in(module[1].num_batches_tracked, file), "what is no half is taken from the source"

    before = ours.stat()
    again = adopt(other, file)
    assert converted(store) == [ours]
    after = ours.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert all(lies_in(parameter, ours) for parameter in other.parameters())
    inputs = torch.randn(3, 8)
    with torch.inference_mode():
        assert bits(module(inputs)) == bits(other(inputs))
        again.to_device(HERE)
        again.offload()
        again.to_device(HERE)
        assert bits(module(inputs)) == bits(other(inputs))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_keeps_its_type_for_another_device(
    tmp_path: Path, adopt: Adopt, store: Store, dtype: torch.dtype
) -> None:
    module = seeded(chain).to(dtype)
    file = written(tmp_path / "model.safetensors", module.state_dict())
    wanted = [bits(tensor) for tensor in module.state_dict().values()]
    home = adopt(module, file, device="cuda")
    assert home.cannot_rest is None
    assert [bits(tensor) for tensor in module.state_dict().values()] == wanted
    assert all(lies_in(tensor, file) for tensor in module.state_dict().values())
    assert not converted(store)


def test_another_library_version_and_another_file_are_converted_anew(tmp_path: Path, store: Store) -> None:
    file = written(tmp_path / "model.safetensors", seeded(chain).half().state_dict())
    for made_by, seed in (("one", 0), ("two", 0), ("two", 1)):
        module = seeded(chain, seed).half()
        written(file, module.state_dict())
        wanted = module[0].weight.float()
        home = Home(module, store, HomeRequest(sources=(Identity.of(file),), device="cpu", made_by=made_by))
        assert torch.equal(module[0].weight, wanted)
        home.close()
    assert len(converted(store)) == 3


def test_a_tensor_that_is_not_aligned_in_its_file_is_converted(tmp_path: Path, adopt: Adopt, store: Store) -> None:
    module = seeded(lambda: nn.Linear(8, 4))
    odd = torch.arange(3, dtype=torch.uint8)
    file = by_hand(tmp_path / "model.safetensors", {"odd": odd, **module.state_dict()})
    wanted = bits(module.weight), bits(module.bias)
    home = adopt(module, file)
    (ours,) = converted(store)
    assert (bits(module.weight), bits(module.bias)) == wanted
    assert lies_in(module.weight, ours)
    assert module.weight.data_ptr() % 4 == 0
    assert home.cannot_rest is None
    assert not mappings(file), "a file that serves nothing is not held"


def test_pickled_weights_are_converted(tmp_path: Path, adopt: Adopt, store: Store) -> None:
    module = seeded(chain)
    file = tmp_path / "pytorch_model.bin"
    torch.save(module.state_dict(), file)
    wanted = [bits(tensor) for tensor in module.state_dict().values()]
    home = adopt(module, file)
    (ours,) = converted(store)
    assert all(lies_in(tensor, ours) for tensor in module.state_dict().values())
    assert [bits(tensor) for tensor in module.state_dict().values()] == wanted
    home.to_device(HERE)
    home.offload()
    assert home.cannot_rest is None


def test_weights_that_the_library_fused_are_converted_and_the_others_are_not(
    tmp_path: Path, adopt: Adopt, store: Store
) -> None:
    torch.manual_seed(0)
    parts = [torch.randn(4, 8) for _ in range(3)]
    module = nn.Module()
    module.qkv = nn.Parameter(torch.cat(parts))
    module.out = nn.Parameter(torch.randn(8, 8))
    wanted = bits(module.qkv)
    names = dict(zip(("query", "key", "value"), parts, strict=True))
    file = written(tmp_path / "model.safetensors", {**names, "out": module.out})
    adopt(module, file)
    assert lies_in(module.out, file)
    assert lies_in(module.qkv, converted(store)[0])
    assert bits(module.qkv) == wanted


# What an earlier home found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_what_an_earlier_home_found_leads_to_the_same_places(tmp_path: Path, adopt: Adopt, dtype: torch.dtype) -> None:
    module = seeded(chain).to(dtype)
    file = written(tmp_path / "model.safetensors", module.state_dict())
    first = adopt(module, file)
    wanted = {name: bits(tensor) for name, tensor in module.state_dict().items()}
    fresh = seeded(chain).to(dtype)
    second = adopt(fresh, file, known=first.locations)
    assert second.locations == first.locations
    assert {name: bits(tensor) for name, tensor in fresh.state_dict().items()} == wanted


def test_what_was_found_in_other_files_or_under_other_names_skips_nothing(tmp_path: Path, adopt: Adopt) -> None:
    module = nn.Sequential(nn.LayerNorm(8), nn.LayerNorm(8))
    for number, parameter in enumerate(module.parameters()):
        nn.init.constant_(parameter, number)
    state = module.state_dict()
    swapped = {"a.weight": state["1.weight"], "b.weight": state["0.weight"], "c": state["0.bias"], "d": state["1.bias"]}
    file = written(tmp_path / "model.safetensors", swapped)
    known = {
        "0.weight": (tmp_path / "gone.safetensors", "a.weight"),
        "0.bias": (file, "no such tensor"),
        "no such region": (file, "d"),
    }
    home = adopt(module, file, known=known)
    assert [parameter.tolist() for parameter in module.parameters()] == [[number] * 8 for number in range(4)]
    assert {name: place for name, (_, place) in home.locations.items()} == {
        "0.weight": "b.weight",
        "1.weight": "a.weight",
        "0.bias": "c",
        "1.bias": "d",
    }


# An element type that was asked for


def attended() -> nn.Module:
    """Weights, running statistics, and buffers that no file has: one as wide as the weights may be, one of integers."""
    module = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 4))
    module.register_buffer("frequencies", torch.rand(4), persistent=False)
    module.register_buffer("ids", torch.arange(4), persistent=False)
    return module


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("wanted", ["float32", "float16", "bfloat16"])
def test_every_floating_weight_gets_the_type_that_was_asked_for(
    tmp_path: Path, adopt: Adopt, store: Store, stored: torch.dtype, wanted: str
) -> None:
    module, dtype = seeded(attended).to(stored), getattr(torch, wanted)
    module.frequencies = module.frequencies.float()
    file = written(tmp_path / "model.safetensors", module.state_dict())
    plain = copy.deepcopy(module)
    home = adopt(module, file, dtype=wanted)
    ours = converted(store)
    assert len(ours) == (stored is not dtype)
    for name, tensor in module.state_dict(keep_vars=True).items():
        expected = plain.state_dict()[name]
        expected = expected.to(dtype) if expected.is_floating_point() else expected
        assert bits(tensor) == bits(expected), name
        assert tensor.dtype is expected.dtype
        assert lies_in(tensor, ours[0] if ours and expected.is_floating_point() else file), name
    assert module.get_buffer("frequencies").dtype is torch.float32, "as the library made it"
    assert home.cannot_rest is None
    inputs = torch.randn(3, 8, dtype=dtype)
    with torch.inference_mode():
        for _ in range(2):
            home.to_device(HERE)
            assert bits(module(inputs)) == bits(plain.to(dtype)(inputs))
            home.offload()


@pytest.mark.parametrize("wanted", ["float32", "bfloat16"])
def test_a_narrow_buffer_that_no_file_has_goes_with_the_weights(tmp_path: Path, adopt: Adopt, wanted: str) -> None:
    module = seeded(attended).half()
    file = written(tmp_path / "model.safetensors", module.state_dict())
    adopt(module, file, dtype=wanted)
    assert module.get_buffer("frequencies").dtype is getattr(torch, wanted)
    assert module.get_buffer("ids").dtype is torch.int64


def test_each_element_type_is_converted_once(tmp_path: Path, adopt: Adopt, store: Store) -> None:
    file = written(tmp_path / "model.safetensors", seeded(chain).state_dict())
    kept = []
    for dtype in ("float16", "bfloat16", "float16", "float32", "auto"):
        adopt(seeded(chain), file, dtype=dtype)
        kept.append(converted(store))
    assert [len(files) for files in kept] == [1, 2, 2, 2, 2]


def test_parameters_that_no_file_can_hold_get_the_type_too(tmp_path: Path, adopt: Adopt) -> None:
    module = seeded(chain)
    file = written(tmp_path / "model.safetensors", module.state_dict())
    module[0].weight = nn.Parameter(module[0].weight.detach().to_sparse(), requires_grad=False)
    adopt(module, file, dtype="bfloat16")
    assert module[0].weight.dtype is module[3].weight.dtype is torch.bfloat16

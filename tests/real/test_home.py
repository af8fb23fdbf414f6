"""The weights of small modules at home in real files: what becomes a view of them, and what survives resting there."""

from __future__ import annotations

import copy
import ctypes
import gc
import json
import mmap
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from engine.devices.placement import CPU, Placement
from engine.errors import CannotRest, LoadFailed
from engine.weights.files.identity import Identity
from engine.weights.files.store import Entry, Store
from engine.weights.home import Home
from engine.weights.home_request import HomeRequest

MIB = 1 << 20
HERE = Placement(CPU)

Adopt = Callable[..., Home]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def adopt(store: Store) -> Iterator[Adopt]:
    """Gives a module a home over files; every home that a test leaves open is closed at its end."""
    homes = []

    def begin(module: nn.Module, *files: Path, device: str = CPU, kept: Store = store, **choices: Any) -> Home:
        sources = [Identity.of(file) for file in files]
        request = HomeRequest(sources=tuple(sources), device=device, made_by="a test", **choices)
        homes.append(Home(module, kept, request))
        return homes[-1]

    yield begin
    for home in homes:
        if home._regions or home._backing.mappings:
            home.close()


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


def rss() -> int:
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8")
    return int(rollup.partition("Rss:")[2].split()[0]) * 1024


def converted(store: Store) -> list[Path]:
    return sorted(store._folder.glob("*")) if store._folder.exists() else []


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


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


# What needs a file of our own


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_computes_as_float32_on_a_cpu_from_a_file_converted_once(
    tmp_path: Path, adopt: Adopt, store: Store, dtype: torch.dtype
) -> None:
    module = seeded(chain).to(dtype)
    module.register_buffer("scratch", torch.arange(4.0).to(dtype), persistent=False)
    wanted = {name: tensor.to(_wide(tensor.dtype)) for name, tensor in module.state_dict().items()}
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


# What cannot rest


class Strange(torch.Tensor):
    """A tensor whose memory is nobody's business but its library's."""


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
    wanted = {name: tensor.to(_wide(tensor.dtype)) for name, tensor in module.state_dict().items()}
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

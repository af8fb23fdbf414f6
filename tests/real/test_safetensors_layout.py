"""Our view of the safetensors format against the format's own library."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import _TYPES, load_file, save_file

from engine.weights.files import layout
from engine.weights.files.store import Entry, Store

DTYPES = {name: dtype for name, dtype in _TYPES.items() if name in layout.ITEM_SIZES}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def tensors() -> dict[str, torch.Tensor]:
    """One odd-sized tensor of each dtype, a scalar and an empty one."""
    made = {f"t.{name}": torch.randint(0, 2, (3, 5)).to(dtype) for name, dtype in DTYPES.items()}
    return made | {"scalar": torch.tensor(1.5), "empty": torch.empty(0, 4)}


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def entries(values: dict[str, torch.Tensor]) -> list[Entry]:
    return [Entry(k, NAMES[t.dtype], tuple(t.shape), lambda t=t: [raw(t)]) for k, t in values.items()]


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(
        found[k].dtype == t.dtype and found[k].shape == t.shape and raw(found[k]) == raw(t) for k, t in wanted.items()
    )


def test_every_dtype_of_the_library_has_the_size_that_we_say() -> None:
    assert {name: dtype.itemsize for name, dtype in DTYPES.items()} == {
        name: layout.ITEM_SIZES[name] for name in DTYPES
    }
    assert {name for name, dtype in _TYPES.items() if dtype.itemsize and name not in layout.ITEM_SIZES} <= {"F4"}


def test_a_file_of_the_library_parses_to_the_right_bytes(tmp_path: Path) -> None:
    wanted, path = tensors(), tmp_path / "theirs.safetensors"
    save_file(wanted, path, metadata={"format": "pt"})
    data, places = path.read_bytes(), layout.read(path)
    assert {place.name for place in places} == wanted.keys()
    for place in places:
        assert (place.dtype, place.shape) == (NAMES[wanted[place.name].dtype], tuple(wanted[place.name].shape))
        assert data[place.begin : place.begin + place.nbytes] == raw(wanted[place.name])


def test_a_file_with_our_header_loads_in_the_library(tmp_path: Path) -> None:
    wanted, path = tensors(), tmp_path / "ours.safetensors"
    head = layout.header([(k, NAMES[t.dtype], tuple(t.shape)) for k, t in wanted.items()], {"format": "pt"})
    path.write_bytes(head + b"".join(raw(tensor) for tensor in wanted.values()))
    assert same(load_file(path), wanted)


def test_a_file_of_the_store_loads_in_the_library_with_every_tensor_aligned(tmp_path: Path) -> None:
    wanted = tensors()
    path = Store(tmp_path, reserve_bytes=0).provide("0abc", entries(wanted))
    assert same(load_file(path), wanted)
    assert all(place.begin % layout.ITEM_SIZES[place.dtype] == 0 for place in layout.read(path))

"""Finding tensors in the files that they were read from, and how little of them is touched by it."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.weights.files import matching, pages
from engine.weights.files.inventory import Region, TensorRef
from engine.weights.files.mapping import Mapping
from engine.weights.files.matching import Places, same
from engine.weights.files.pages import Usage

if sys.platform != "linux":
    pytest.skip("tells from Linux' page tables what was touched", allow_module_level=True)

MIB = 1 << 20
NAMES = ("a.weight", "b.weight")
NUMBERS = 8 * MIB
"""In each tensor, of four bytes: a comparison takes several parts."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with two tensors, equal to the last bit."""
    path = tmp_path / "model.safetensors"
    values = torch.arange(NUMBERS, dtype=torch.float32)
    save_file({name: values.clone() for name in NAMES}, path)
    return path


@pytest.fixture
def library(path: Path) -> Iterator[Mapping]:
    """The file, mapped as a library maps it that copies nothing."""
    mapping = Mapping(path)
    yield mapping
    mapping.close()


@pytest.fixture
def ours(path: Path) -> Iterator[Mapping]:
    mapping = Mapping(path)
    yield mapping
    mapping.close()


def region(name: str, tensor: torch.Tensor) -> Region:
    return Region([TensorRef(name, tensor, [])])


def taken(places: Places, wanted: Region) -> str | None:
    match = places.take(wanted, {})
    return match and match[1].name


def test_what_stands_in_a_mapping_of_the_file_is_found_without_touching_a_page(library: Mapping, ours: Mapping) -> None:
    places = Places([ours])
    for name in reversed(NAMES):
        # Neither the name nor the bytes would tell the two apart.
        assert taken(places, region("renamed", library.flat(library.places[name]))) == name
    assert ours.usage() == library.usage() == Usage(0, 0)


def test_what_was_written_into_since_is_not_what_the_file_holds(library: Mapping, ours: Mapping) -> None:
    flat = library.flat(library.places["a.weight"])
    flat[NUMBERS // 2] = -1
    assert taken(Places([ours]), region("a.weight", flat)) is None


def test_what_was_written_as_it_was_is_found_by_its_bytes(library: Mapping, ours: Mapping) -> None:
    flat = library.flat(library.places["b.weight"])
    flat[NUMBERS // 2] = NUMBERS // 2
    assert taken(Places([ours]), region("b.weight", flat)) == "b.weight"


def test_another_copy_of_the_file_is_compared_and_leaves_next_to_nothing_resident(
    path: Path, ours: Mapping, tmp_path: Path
) -> None:
    other = tmp_path / "copy.safetensors"
    other.write_bytes(path.read_bytes())
    library = Mapping(other)
    assert taken(Places([ours]), region("b.weight", library.flat(library.places["b.weight"]))) == "b.weight"
    for mapping in (library, ours):
        assert (mapping.usage().resident or 0) <= 4 * MIB
    library.close()


def test_a_comparison_keeps_what_was_written_into(library: Mapping, ours: Mapping) -> None:
    flat = library.flat(library.places["a.weight"])
    flat[0] = 0  # the same value, in a page of this process's own
    flat[-1] = -1
    assert not same(flat, ours.flat(ours.places["a.weight"]), pages.backings())
    assert (float(flat[0]), float(flat[-1])) == (0, -1)
    assert (library.usage().written or 0) == 2 * mmap.PAGESIZE


def test_a_comparison_gives_no_plain_memory_back(ours: Mapping) -> None:
    plain = torch.arange(NUMBERS, dtype=torch.float32)
    assert same(plain, ours.flat(ours.places["a.weight"]), pages.backings())
    assert torch.equal(plain, torch.arange(NUMBERS, dtype=torch.float32))


def test_where_the_system_does_not_say_what_was_written_the_bytes_are_compared(
    library: Mapping, ours: Mapping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching.pages, "usage", lambda address, length: Usage(None, None))
    library.flat(library.places["a.weight"])[0] = 7
    assert taken(Places([ours]), region("a.weight", library.flat(library.places["a.weight"]))) is None
    assert taken(Places([ours]), region("b.weight", library.flat(library.places["b.weight"]))) == "b.weight"

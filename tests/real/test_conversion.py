"""Weights converted into a file of ours: the same values, and little of them in RAM meanwhile."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.weights.files.conversion import convert
from engine.weights.files.identity import Identity
from engine.weights.files.inventory import Region, TensorRef
from engine.weights.files.mapping import Mapping
from engine.weights.files.store import Entry, Store

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MIB = 1 << 20
NUMBERS = 24 * MIB + 7
"""In the large tensor: several parts, and the last one not full."""


class Watched(Store):
    """A store that notes how large each part is, and how much of the source is resident when it is written."""

    def __init__(self, folder: Path, source: Mapping) -> None:
        super().__init__(folder, reserve_bytes=0)
        self.source = source
        self.parts: list[int] = []
        self.resident: list[int] = []

    def provide(self, key: str, entries: Sequence[Entry]) -> Path:
        """Note the parts of each entry in their order."""

        def watched(entry: Entry) -> Entry:
            def parts() -> Iterator[ReadableBuffer]:
                for part in entry.parts():
                    self.parts.append(memoryview(part).nbytes)
                    self.resident.append(self.source.usage().resident or 0)
                    yield part

            return Entry(entry.name, entry.dtype, entry.shape, parts)

        return super().provide(key, [watched(entry) for entry in entries])


@pytest.fixture
def library(tmp_path: Path) -> Mapping:
    """A file of float16, mapped as a library maps it that copies nothing."""
    path = tmp_path / "model.safetensors"
    chance = torch.Generator().manual_seed(0)
    values = {"large": torch.randn(NUMBERS, generator=chance).half(), "small": torch.arange(5).half()}
    values["small"][0], values["small"][1] = float("inf"), float("nan")
    save_file(values, path)
    return Mapping(path)


def converted(library: Mapping, store: Store, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What the file holds that the tensors of `library` are converted into."""
    flats = {name: library.flat(place) for name, place in library.places.items()}
    regions = [Region([TensorRef(name, flat, [])]) for name, flat in flats.items()]
    types = dict.fromkeys(flats, dtype)
    path = convert(regions, types, store, sources=[library.identity], made_by="a test")
    assert Identity.of(library.identity.path) == library.identity
    return load_file(path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_every_element_is_converted_as_torch_converts_the_whole(
    library: Mapping, tmp_path: Path, dtype: torch.dtype
) -> None:
    found = converted(library, Store(tmp_path / "store", reserve_bytes=0), dtype)
    for name, place in library.places.items():
        wanted = library.flat(place).to(dtype)
        assert found[name].dtype is dtype
        assert torch.equal(found[name].view(torch.uint8), wanted.view(torch.uint8))


@pytest.mark.skipif(sys.platform != "linux", reason="tells from Linux' page tables what is resident")
def test_a_part_at_a_time_is_in_memory_and_the_source_is_given_back(library: Mapping, tmp_path: Path) -> None:
    watched = Watched(tmp_path / "store", library)
    converted(library, watched, torch.float32)
    assert max(watched.parts) <= 32 * MIB
    assert sum(watched.parts) == 4 * (NUMBERS + 5)
    assert max(watched.resident) <= 4 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="tells from Linux' page tables what was written")
def test_what_was_written_into_the_source_is_converted_and_kept(library: Mapping, tmp_path: Path) -> None:
    flat = library.flat(library.places["large"])
    flat[NUMBERS // 2] = 7
    found = converted(library, Store(tmp_path / "store", reserve_bytes=0), torch.float32)
    assert float(found["large"][NUMBERS // 2]) == 7
    assert float(flat[NUMBERS // 2]) == 7
    assert library.usage().written == mmap.PAGESIZE

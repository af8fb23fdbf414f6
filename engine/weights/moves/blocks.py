"""The blocks of a module that runs them one after the other, and which weights are theirs alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engine.weights.files.inventory import Region, TensorRef
from engine.weights.moves.device_copy import copy_size
from engine.weights.moves.staging import aligned


@dataclass(frozen=True, slots=True)
class Block:
    """One entry of a `torch.nn.ModuleList`, and the weights that nothing else holds."""

    module: Any
    regions: tuple[Region, ...]

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in one piece of memory."""
        return packed(self.regions)


@dataclass(frozen=True, slots=True)
class EmbeddingTable:
    """The weight of a `torch.nn.Embedding`, or of several that share it: larger than any block, and few rows used."""

    modules: tuple[Any, ...]
    region: Region


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """How many of the leading blocks stay on the device, and how many buffers there are for the others."""

    resident: int
    buffers: int


@dataclass(frozen=True, slots=True)
class Blocks:
    """A module's weights by where they are used: in the blocks, in the order of the module, in tables, elsewhere."""

    blocks: tuple[Block, ...]
    tables: tuple[EmbeddingTable, ...]
    rest: tuple[Region, ...]

    @property
    def can_stream(self) -> bool:
        """Whether there are at least two blocks, so that not all have to be there at once."""
        return len(self.blocks) > 1

    def least(self, loose: Sequence[TensorRef]) -> int | None:
        """Bytes on a device with no block resident and two buffers; None where it cannot be streamed."""
        if not self.can_stream:
            return None
        return self._always(loose) + 2 * max(block.nbytes for block in self.blocks)

    def plan(self, loose: Sequence[TensorRef], nbytes: int) -> StreamPlan | None:
        """Return what fits in `nbytes` beside all that is no block's; None when not even one buffer does."""
        sizes = [block.nbytes for block in self.blocks]
        room = nbytes - self._always(loose)
        if sum(sizes) <= room:
            return StreamPlan(len(sizes), 0)
        for buffers in (2, 1):
            for resident in reversed(range(len(sizes))):
                if sum(sizes[:resident]) + buffers * max(sizes[resident:]) <= room:
                    return StreamPlan(resident, buffers)
        return None

    def _always(self, loose: Sequence[TensorRef]) -> int:
        return aligned(copy_size(self.rest, loose))


class Order:
    """Which block follows which: as they stand in the module, until they are seen to run otherwise."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        """Begin with the order of the module, the first after the last."""
        second_first = (*blocks[1:], *blocks[:1])
        self._following = {id(block): other for block, other in zip(blocks, second_first, strict=True)}
        self._last: Block | None = None

    def came(self, block: Block) -> None:
        """Learn that `block` runs now."""
        if self._last is not None:
            self._following[id(self._last)] = block
        self._last = block

    def after(self, block: Block) -> Block:
        """Return the block that is likely to run next."""
        return self._following[id(block)]


def find_blocks(module: Any, regions: Sequence[Region]) -> Blocks:
    """Group the weights of a `torch.nn.Module` by the entries of its outermost `ModuleList`s; changes nothing."""
    entries = list({id(entry): entry for entry in _entries(module)}.values())
    owner = {id(table): index for index, entry in enumerate(entries) for table in _tables(entry)}
    inside: dict[int, list[Region]] = {}
    outside: list[Region] = []
    for region in regions:
        owners = {owner.get(id(table)) for table, _ in region.holders}
        index = owners.pop() if len(owners) == 1 else None
        (outside if index is None else inside.setdefault(index, [])).append(region)
    if len(inside) < 2:
        return Blocks((), (), tuple(regions))
    blocks = tuple(Block(entries[index], tuple(inside[index])) for index in sorted(inside))
    largest = max(block.nbytes for block in blocks)
    looked_up = _looked_up(module)
    tables = [
        EmbeddingTable(modules, region)
        for region in outside
        if region.flat.nbytes > largest and (modules := _readers(region, looked_up))
    ]
    kept = {id(table.region) for table in tables}
    return Blocks(blocks, tuple(tables), tuple(region for region in outside if id(region) not in kept))


def packed(regions: Iterable[Region]) -> int:
    """Bytes that regions take one after the other, each at an aligned offset."""
    return sum(aligned(region.flat.nbytes) for region in regions)


def _entries(module: Any) -> Iterator[Any]:
    """The entries of the outermost lists, of which one entry alone is no list; a list in a list is never called."""
    import torch

    for child in module.children():
        if isinstance(child, torch.nn.ModuleList) and len(child) > 1:
            for entry in child:
                if isinstance(entry, torch.nn.ModuleList | torch.nn.ModuleDict):
                    yield from entry.children()
                else:
                    yield entry
        else:
            yield from _entries(child)


def _tables(module: Any) -> Iterator[dict[str, Any]]:
    for part in module.modules():
        yield part._parameters
        yield part._buffers


def _looked_up(module: Any) -> dict[int, Any]:
    """The modules that do nothing but take rows of their weight, by the table that holds it."""
    import torch

    return {
        id(part._parameters): part
        for part in module.modules()
        if type(part) is torch.nn.Embedding and part.max_norm is None and not part.sparse
    }


def _readers(region: Region, looked_up: dict[int, Any]) -> tuple[Any, ...]:
    """The modules that take rows of this region, if it is the whole weight of those and nothing else."""
    tensors = region.tensors
    whole = len(tensors) == 1 and tensors[0].dim() == 2 and tensors[0].is_contiguous()
    found = [looked_up.get(id(table)) for table, _ in region.holders]
    return tuple(found) if whole and None not in found else ()

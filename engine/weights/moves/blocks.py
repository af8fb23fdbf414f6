"""The blocks of a module that runs them in sequence, and the weights that each has to itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engine.weights.files.inventory import Region, TensorRef
from engine.weights.moves.device_copy import copy_size
from engine.weights.moves.staging import aligned


@dataclass(frozen=True, slots=True)
class Block:
    """One entry of a `torch.nn.ModuleList`, and the weights that only this entry holds."""

    module: Any
    regions: tuple[Region, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its weights in one run of memory."""
        return packed_size(self.regions)


@dataclass(frozen=True, slots=True)
class EmbeddingTable:
    """The weight of one or more `torch.nn.Embedding`s: larger than any block, and a call reads few rows."""

    modules: tuple[Any, ...]
    region: Region


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """The division of a limit between blocks that stay on the device and buffers for the others."""

    resident: int
    """Leading blocks that stay."""
    buffers: int
    """Buffers that the other blocks share."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """A module's weights by their use: in blocks, in the order of the module, in embedding tables, elsewhere."""

    blocks: tuple[Block, ...]
    tables: tuple[EmbeddingTable, ...]
    rest: tuple[Region, ...]

    @property
    def can_stream(self) -> bool:
        """Whether there are at least two blocks, so that not all must be on the device at once."""
        return len(self.blocks) > 1

    def least(self, loose: Sequence[TensorRef]) -> int | None:
        """Return the bytes on a device with no block resident and two buffers; None if it cannot be streamed."""
        if not self.can_stream:
            return None
        return self._always(loose) + 2 * max(block.nbytes for block in self.blocks)

    def plan(self, loose: Sequence[TensorRef], nbytes: int) -> StreamPlan | None:
        """Divide `nbytes`, less the weights outside the blocks; None if not even one buffer fits."""
        sizes = [block.nbytes for block in self.blocks]
        available = nbytes - self._always(loose)
        if sum(sizes) <= available:
            return StreamPlan(len(sizes), 0)
        for buffers in (2, 1):
            for resident in reversed(range(len(sizes))):
                if sum(sizes[:resident]) + buffers * max(sizes[resident:]) <= available:
                    return StreamPlan(resident, buffers)
        return None

    def _always(self, loose: Sequence[TensorRef]) -> int:
        return aligned(copy_size(self.rest, loose))


class Order:
    """The order in which blocks run: that of the module, until calls are observed in another one."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        """Begin with the order of the module, in which the first block follows the last."""
        second_first = (*blocks[1:], *blocks[:1])
        self._following = {id(block): other for block, other in zip(blocks, second_first, strict=True)}
        self._last: Block | None = None

    def started(self, block: Block) -> None:
        """Note that `block` runs now."""
        if self._last is not None:
            self._following[id(self._last)] = block
        self._last = block

    def after(self, block: Block) -> Block:
        """Return the block that is likely to run next."""
        return self._following[id(block)]


def find_blocks(module: Any, regions: Sequence[Region]) -> Blocks:
    """Group the weights of a `torch.nn.Module` by the entries of its outermost `ModuleList`s; changes nothing."""
    entries = list({id(entry): entry for entry in _entries(module)}.values())
    owner = {id(holder): index for index, entry in enumerate(entries) for holder in _holders(entry)}
    inside: dict[int, list[Region]] = {}
    outside: list[Region] = []
    for region in regions:
        owners = {owner.get(id(holder)) for holder, _ in region.holders}
        index = owners.pop() if len(owners) == 1 else None
        (outside if index is None else inside.setdefault(index, [])).append(region)
    if len(inside) < 2:
        return Blocks((), (), tuple(regions))
    blocks = tuple(Block(entries[index], tuple(inside[index])) for index in sorted(inside))
    largest = max(block.nbytes for block in blocks)
    embeddings = _embeddings(module)
    tables = [
        EmbeddingTable(modules, region)
        for region in outside
        if region.flat.nbytes > largest and (modules := _readers(region, embeddings))
    ]
    kept = {id(table.region) for table in tables}
    return Blocks(blocks, tuple(tables), tuple(region for region in outside if id(region) not in kept))


def packed_size(regions: Iterable[Region]) -> int:
    """Return the bytes of regions one after the other, each at an aligned offset."""
    return sum(aligned(region.flat.nbytes) for region in regions)


def _entries(module: Any) -> Iterator[Any]:
    """Return the entries of the outermost lists with several entries.

    An entry that is a list or a dict itself is replaced by its own entries, because such an entry is never called.
    """
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


def _holders(module: Any) -> Iterator[dict[str, Any]]:
    for part in module.modules():
        yield part._parameters
        yield part._buffers


def _embeddings(module: Any) -> dict[int, Any]:
    """Return the modules that only look up rows of their weight, by the id of the dict that holds it."""
    import torch

    return {
        id(part._parameters): part
        for part in module.modules()
        if type(part) is torch.nn.Embedding and part.max_norm is None and not part.sparse
    }


def _readers(region: Region, embeddings: dict[int, Any]) -> tuple[Any, ...]:
    """Return the modules that look up rows of this region, if it is exactly their weight and of no other module."""
    tensors = region.tensors
    whole = len(tensors) == 1 and tensors[0].dim() == 2 and tensors[0].is_contiguous()
    readers = [embeddings.get(id(holder)) for holder, _ in region.holders]
    return tuple(readers) if whole and None not in readers else ()

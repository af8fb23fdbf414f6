"""Weights on a CPU that exceed their limit in RAM: each block's pages are given back after it ran."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.weights.files import pages
from engine.weights.files.inventory import Region
from engine.weights.files.mapping import Mapping
from engine.weights.moves.blocks import Block, Blocks, Order

if TYPE_CHECKING:
    import torch

PlaceOf = Callable[[Region], tuple[Mapping, int] | None]
"""Returns the mapping of a region and its first byte there; None if it is in no mapping."""


@dataclass(frozen=True, slots=True)
class Range:
    """Whole pages of a mapping, as a range of its bytes, and the address of the first one."""

    mapping: Mapping
    begin: int
    end: int
    address: int

    def will_need(self) -> None:
        """Let the system read the pages from the disk in the background."""
        self.mapping.will_need(self.begin, self.end)

    def give_back(self) -> None:
        """Give the pages back, unless some were written to or the system cannot say."""
        if not self.mapping.gone and pages.usage(self.address, self.end - self.begin).written == 0:
            self.mapping.give_back(self.begin, self.end)


class Paging:
    """A module that computes on its mapped pages, few of them resident at a time, until `end`.

    Weights outside the blocks and the leading blocks that fit stay in RAM. The pages of each other block are given back
    after it ran, while the system reads those of the next one into its cache; the pages of large embeddings are given
    back after each call.
    """

    nbytes = 0
    """Bytes on a device other than RAM."""

    def __init__(self, blocks: Blocks, streamed_in: int, place_of: PlaceOf) -> None:
        """Limit the weights to about `streamed_in` bytes of RAM, but to no less than one block and the rest."""
        available = streamed_in - sum(region.flat.nbytes for region in blocks.rest)
        sizes = [block.nbytes for block in blocks.blocks]
        fitting = [n for n in range(len(sizes)) if sum(sizes[:n]) + max(sizes[n:]) <= available]
        kept = len(sizes) if sum(sizes) <= available else max(fitting, default=0)
        self.note = f"Streamed: {kept} of {len(sizes)} blocks stay in RAM."
        paged = blocks.blocks[kept:]
        self._order = Order(paged)
        self._ranges = {id(block): page_ranges(block.regions, place_of) for block in paged}
        self._hooks: list[Any] = []
        try:
            for block in paged:
                self._hooks += [
                    block.module.register_forward_pre_hook(partial(self._enter, block)),
                    block.module.register_forward_hook(partial(self._leave, block), always_call=True),
                ]
            for table in blocks.tables:
                after = partial(_give_back, page_ranges([table.region], place_of))
                self._hooks += [module.register_forward_hook(after, always_call=True) for module in table.modules]
        except BaseException:
            self.end()
            raise

    def end(self) -> dict[str, torch.Tensor]:
        """Stop giving pages back; returns nothing, because writes are in the pages themselves."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._ranges.clear()
        self._order = Order(())
        return {}

    def _enter(self, block: Block, module: Any, args: Any) -> None:
        self._order.started(block)
        for ahead in self._ranges[id(self._order.after(block))]:
            ahead.will_need()

    def _leave(self, block: Block, module: Any, args: Any, output: Any) -> None:
        _give_back(self._ranges[id(block)])


def page_ranges(regions: Iterable[Region], place_of: PlaceOf) -> tuple[Range, ...]:
    """Return the pages of regions, adjacent ones as one range; regions in no file are left out."""
    ranges: list[Range] = []
    placed = [(*place, region) for region in regions if (place := place_of(region)) is not None]
    for mapping, begin, region in sorted(placed, key=lambda item: (id(item[0]), item[1])):
        first = begin // mmap.PAGESIZE * mmap.PAGESIZE
        end = -(-(begin + region.flat.nbytes) // mmap.PAGESIZE) * mmap.PAGESIZE
        last = ranges[-1] if ranges else None
        if last is not None and last.mapping is mapping and first <= last.end:
            ranges[-1] = Range(mapping, last.begin, max(end, last.end), last.address)
        else:
            ranges.append(Range(mapping, first, end, region.flat.data_ptr() - (begin - first)))
    return tuple(ranges)


def _give_back(ranges: Sequence[Range], *_: Any) -> None:
    for each in ranges:
        each.give_back()

"""Weights on a CPU that are more than shall be in RAM at once: each block's pages go back after it ran."""

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
"""Says in which mapping a region lies, and at which byte of it; None where it is in none."""


@dataclass(frozen=True, slots=True)
class Range:
    """Whole pages of a mapping, from one byte of it to another; `address` is where the first one is."""

    mapping: Mapping
    begin: int
    end: int
    address: int

    def will_need(self) -> None:
        """Have the system read them from the disk meanwhile."""
        self.mapping.will_need(self.begin, self.end)

    def give_back(self) -> None:
        """Let the system have them, unless something was written there, or the system does not say."""
        if not self.mapping.gone and pages.usage(self.address, self.end - self.begin).written == 0:
            self.mapping.give_back(self.begin, self.end)


class Paging:
    """A module that computes on its mapped pages, few of them resident at a time; until `end`.

    What is no block's and the leading blocks that fit stay as they are. The pages of another block go back after it
    ran, while the system reads those of the next one into its cache; the pages of large embeddings after each call.
    """

    nbytes = 0
    """On a device that is not RAM."""

    def __init__(self, blocks: Blocks, streamed_in: int, place_of: PlaceOf) -> None:
        """Let the weights take about `streamed_in` bytes of RAM; fewer than one block beside the rest they cannot."""
        room = streamed_in - sum(region.flat.nbytes for region in blocks.rest)
        sizes = [block.nbytes for block in blocks.blocks]
        fitting = [n for n in range(len(sizes)) if sum(sizes[:n]) + max(sizes[n:]) <= room]
        kept = len(sizes) if sum(sizes) <= room else max(fitting, default=0)
        self.note = f"Streamed: {kept} of {len(sizes)} blocks stay in RAM."
        paged = blocks.blocks[kept:]
        self._order = Order(paged)
        self._ranges = {id(block): merged(block.regions, place_of) for block in paged}
        self._hooks: list[Any] = []
        try:
            for block in paged:
                self._hooks += [
                    block.module.register_forward_pre_hook(partial(self._enter, block)),
                    block.module.register_forward_hook(partial(self._leave, block), always_call=True),
                ]
            for table in blocks.tables:
                after = partial(_give_back, merged([table.region], place_of))
                self._hooks += [module.register_forward_hook(after, always_call=True) for module in table.modules]
        except BaseException:
            self.end()
            raise

    def end(self) -> dict[str, torch.Tensor]:
        """Leave the pages alone from now on; what was written stands in them, so there is nothing to return."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._ranges.clear()
        self._order = Order(())
        return {}

    def _enter(self, block: Block, module: Any, args: Any) -> None:
        self._order.came(block)
        for ahead in self._ranges[id(self._order.after(block))]:
            ahead.will_need()

    def _leave(self, block: Block, module: Any, args: Any, output: Any) -> None:
        _give_back(self._ranges[id(block)])


def merged(regions: Iterable[Region], place_of: PlaceOf) -> tuple[Range, ...]:
    """Return the pages on which regions lie, those that touch as one range; what is in no file is left out."""
    found: list[Range] = []
    placed = [(*place, region) for region in regions if (place := place_of(region)) is not None]
    for mapping, begin, region in sorted(placed, key=lambda item: (id(item[0]), item[1])):
        first = begin // mmap.PAGESIZE * mmap.PAGESIZE
        end = -(-(begin + region.flat.nbytes) // mmap.PAGESIZE) * mmap.PAGESIZE
        last = found[-1] if found else None
        if last is not None and last.mapping is mapping and first <= last.end:
            found[-1] = Range(mapping, last.begin, max(end, last.end), last.address)
        else:
            found.append(Range(mapping, first, end, region.flat.data_ptr() - (begin - first)))
    return tuple(found)


def _give_back(ranges: Sequence[Range], *_: Any) -> None:
    for used in ranges:
        used.give_back()

"""The modes in which an encoder can go up, the best first, and its state from climb to climb."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from engine.devices.placement import Needs, Placement
from engine.residency.headroom import FOR_BATCHES, Headroom
from engine.units import in_words

_ERROR: Final = "error"
_STREAM: Final = "stream"


class Mode(IntEnum):
    """A way to place weights; the smaller the better."""

    WHOLE = 0
    """All weights on the device at once."""
    STREAMED = 1
    """Block by block, in what is left beside batches."""
    STREAMED_MINIMAL = 2
    """Block by block, with no block resident."""
    ON_CPU = 3
    """On the CPU."""


@dataclass(frozen=True, slots=True)
class CpuShare:
    """Bytes of weights that one encoder may keep resident on the CPU, out of the allowance of all."""

    nbytes: int
    allowance: int


@dataclass(slots=True)
class LastPlacement:
    """The state of one encoder's search for a place, kept from climb to climb; changed by one climb at a time."""

    mode: Mode = Mode.WHOLE
    """The mode of its last climb."""
    start_at: Mode = Mode.WHOLE
    """The first mode to try at the next climb; a worse one after a batch that ran out of memory."""
    wanted: Needs | None = None
    """Its needs on the device where it found no room to be whole; None otherwise."""
    cpu_share: CpuShare | None = None
    """Its share of the CPU's allowance, where it is streamed there."""


@dataclass(frozen=True, slots=True)
class Search:
    """One search for a place on a device; `make_room` and `free_device` make other encoders step down."""

    headroom: Headroom
    make_room: Callable[[bool], bool]
    """Makes room for the whole weights, given whether a part of it helps too; returns whether there is room."""
    free_device: Callable[[], None]
    """Makes every other encoder leave the device that may."""
    on_cpu: Callable[[str], Placement]
    """Returns a placement on the CPU, given the reason for the user."""

    def modes(
        self, needs: Needs, on_no_room: str, start_at: Mode, last: LastPlacement
    ) -> Iterator[tuple[Mode, Placement]]:
        """Make room and yield one placement after the other, from `start_at` on, as `on_no_room` allows."""
        device, streams = needs.device, on_no_room == _STREAM and needs.least is not None
        if start_at <= Mode.WHOLE:
            has_room = self.make_room(streams)
            if has_room:
                yield Mode.WHOLE, Placement(device)
                # Memory ran out although the weights should fit: once more, with the device to itself.
                self.free_device()
                yield Mode.WHOLE, Placement(device)
            else:
                last.wanted = needs
        if streams:
            yield from self._streamed(needs, needs.least or 0, start_at)
        if on_no_room != _ERROR:
            because = (
                f"It computes on the CPU, because {device} has no room for its {in_words(needs.whole, decimals=0)}."
            )
            yield Mode.ON_CPU, self.on_cpu(because)

    def _streamed(self, needs: Needs, least: int, start_at: Mode) -> Iterator[tuple[Mode, Placement]]:
        device, available = needs.device, self.headroom.available(needs.device)
        share = needs.whole // 2 if available is None else available - available // FOR_BATCHES
        if start_at == Mode.STREAMED:
            # The weights fit, but nothing was left for batches.
            share = min(share, needs.whole // 2)
        if start_at <= Mode.STREAMED and share > least:
            yield Mode.STREAMED, Placement(device, share)
        if start_at <= Mode.STREAMED_MINIMAL and (available is None or available >= least):
            yield Mode.STREAMED_MINIMAL, Placement(device, least)

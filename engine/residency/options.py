"""How one encoder stands where it computes, and what that means for its next climb."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from engine.devices.placement import Needs


class Way(IntEnum):
    """A way up; the smaller the better."""

    WHOLE = 0
    """All weights on the device at once."""
    STREAMED = 1
    """Block by block, in what is left beside batches."""
    STREAMED_LEAST = 2
    """Block by block, with no block resident."""
    ELSEWHERE = 3
    """On the CPU."""


@dataclass(frozen=True, slots=True)
class Share:
    """Bytes of weights that one encoder may keep resident on the CPU, out of how many for all."""

    nbytes: int
    allowance: int


@dataclass(slots=True)
class Standing:
    """What is remembered of one encoder from climb to climb; changed by one climb at a time."""

    way: Way = Way.WHOLE
    """The way in which it went up last."""
    first_way: Way = Way.WHOLE
    """The first one to try at the next climb; a worse one after a batch that ran out of memory."""
    displaced: Needs | None = None
    """What it wants where it would rather stand whole, if only for lack of room it does not."""
    share: Share | None = None
    """What it may keep on the CPU, where it is streamed there."""

"""Where an encoder's weights shall stand while it computes, and what they would take there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CPU: Final = "cpu"
"""The device that is always there; what computes on it has its weights in RAM."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What the weights of one loaded encoder would take on the device that it wishes for, in bytes."""

    device: str
    """torch's name of that device."""
    whole: int
    """All of them at once."""
    least: int | None = None
    """Streamed, with no block resident; None where they cannot be streamed or shall not be."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How the weights go up: whole, or streamed block by block within a number of bytes."""

    device: str
    streamed_in: int | None = None
    """Bytes that the weights may take on the device at once; None = all of them are there."""
    reason: str | None = None
    """What a person must be told once: why they are not on the device that the encoder wishes for."""

"""The usage of a range of mapped memory at one instant."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes of a range of a private file mapping, None if unknown."""

    resident: int | None
    """Bytes in RAM and in this process's page tables now."""
    written: int | None
    """Bytes of pages copied for this process by a write; the file does not have them."""

"""What is known about a range of mapped memory at one instant."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes of a range of a private file mapping; None where the system does not say."""

    resident: int | None
    """In RAM and in this process's page tables now."""
    written: int | None
    """Copied for this process because something wrote to them; the file does not have them."""

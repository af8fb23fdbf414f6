"""The request for a home: the files of a module, and how it will compute."""

from __future__ import annotations

from collections.abc import Mapping as Table
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from engine.devices.placement import CPU
from engine.weights.files.identity import Identity

AUTO: Final = "auto"
"""The element type of the files on a device; on a CPU float32 for half precision."""

MAPPED, PINNED, DISK = "mapped", "pinned", "disk"

Locations = Table[str, tuple[Path, str]]
"""Name of a region -> the file with its bytes, and the tensor's name in that file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeRequest:
    """One request: everything that defines a home, except the module and the store."""

    sources: tuple[Identity, ...]
    """The module's weights files, as they were before it was read."""
    made_by: str
    """The libraries and the configuration that read the files; others may read them differently."""
    device: str
    """torch's name of the device that the module will compute on."""
    dtype: str = AUTO
    """The element type to compute in: auto, or torch's name of a floating type for all floating weights."""
    keep: str = MAPPED
    """The place of weights that are off their device: mapped | pinned (a copy in RAM) | disk (unloaded)."""
    known: Locations = field(default_factory=dict)
    """The locations that an earlier home of the same files has found."""

    @property
    def on_cpu(self) -> bool:
        """Whether the module computes on the CPU."""
        return self.device == CPU

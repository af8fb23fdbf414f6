"""One row of the menu, and the commands that a click can carry: immutable values without behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class SetLazy:
    """Load encoders on first use (true), or bring all of them to their device now and at start (false)."""

    lazy: bool


@dataclass(frozen=True, slots=True)
class SetEagerLoad:
    """Read every encoder's weights into RAM at start (true), or only when they are needed (false)."""

    eager: bool


@dataclass(frozen=True, slots=True)
class SetIdleTimeout:
    """Let encoders leave their device after this many seconds without use; 0 = never."""

    seconds: float


@dataclass(frozen=True, slots=True)
class SetUnloadTimeout:
    """Unload encoders that have been in RAM for this many seconds; 0 = never."""

    seconds: float


@dataclass(frozen=True, slots=True)
class SetMaxVram:
    """Limit the memory of all encoders together on each GPU, spelled as `max_vram` in the settings."""

    budget: str


@dataclass(frozen=True, slots=True)
class LoadEncoder:
    """Bring one encoder to its device, without waiting for the delay after a failed load."""

    name: str


@dataclass(frozen=True, slots=True)
class OffloadEncoder:
    """Take one encoder off its device, unless it is in use or pinned."""

    name: str


@dataclass(frozen=True, slots=True)
class UnloadEncoder:
    """Drop one encoder's weights, unless it is in use or pinned."""

    name: str


@dataclass(frozen=True, slots=True)
class PinEncoder:
    """Pin one encoder, or unpin it, now and after the next start."""

    name: str
    pinned: bool


@dataclass(frozen=True, slots=True)
class OffloadAll:
    """Take every encoder that is not in use off its device."""


@dataclass(frozen=True, slots=True)
class UnloadAll:
    """Drop the weights of every encoder that is not in use."""


@dataclass(frozen=True, slots=True)
class CopyEndpoint:
    """Put the endpoint's address on the clipboard."""

    url: str


@dataclass(frozen=True, slots=True)
class OpenSettings:
    """Open the settings file in the user's editor."""


@dataclass(frozen=True, slots=True)
class Quit:
    """Close Pilotlight."""


Command = (
    SetLazy
    | SetEagerLoad
    | SetIdleTimeout
    | SetUnloadTimeout
    | SetMaxVram
    | LoadEncoder
    | OffloadEncoder
    | UnloadEncoder
    | PinEncoder
    | OffloadAll
    | UnloadAll
    | CopyEndpoint
    | OpenSettings
    | Quit
)


@dataclass(frozen=True, slots=True)
class Item:
    """One row; without a command and children it only informs."""

    text: str
    command: Command | None = None
    checked: bool | None = None
    """Whether the row has its check; None for a row that cannot have one."""
    radio: bool = False
    enabled: bool = True
    children: tuple[Item, ...] = ()
    room: int = 0
    """Characters that the row must be wide enough for, because a panel does not widen an open menu."""


SEPARATOR: Final = Item("", enabled=False)
"""A line between two groups."""


def note(text: str, room: int = 0) -> Item:
    """Return a row that only informs."""
    return Item(text, enabled=False, room=room)


def shape(rows: tuple[Item, ...]) -> tuple[object, ...]:
    """Return the parts that a drawn menu cannot change in place: number, order, sort and nesting of the rows."""
    return tuple(
        None if row is SEPARATOR else (row.checked is not None, row.radio, shape(row.children)) for row in rows
    )

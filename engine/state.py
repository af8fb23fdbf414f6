"""What an encoder's life looks like from outside: the rungs of the ladder and a frozen view of one encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final


class State(StrEnum):
    """One rung of the ladder, spelled as the HTTP endpoint spells it."""

    ON_DEVICE = "on_device"
    """Weights where they compute; the next use pays nothing."""
    STEPPING_DOWN = "stepping_down"
    """Weights on the way down; new leases wait, then go up again."""
    IN_RAM = "in_ram"
    """Weights off the device but reachable at memory speed; tokenizer and skeleton kept."""
    UNLOADED = "unloaded"
    """Nothing but the configuration; the next use pays a load."""
    LOADING = "loading"
    """On the way up; one caller loads, the others wait."""
    FAILED = "failed"
    """The last load failed; a retry is allowed after a delay that grows."""
    UNAVAILABLE = "unavailable"
    """Trying cannot help: a package or a file is missing, and the error says which."""


RESTING: Final = frozenset({State.ON_DEVICE, State.IN_RAM, State.UNLOADED, State.FAILED, State.UNAVAILABLE})
"""States that last until somebody acts; the others end by themselves."""

_STATUS: Final = {
    State.STEPPING_DOWN: "stepping down",
    State.IN_RAM: "in RAM",
    State.UNLOADED: "idle (not loaded)",
    State.LOADING: "loading",
    State.FAILED: "failed",
    State.UNAVAILABLE: "unavailable",
}


@dataclass(frozen=True, slots=True)
class Shortage:
    """Bytes that must come free on a device, and for whom, in words."""

    device: str
    nbytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Download:
    """How far the download of a model's files is, in bytes; `total` None = not known yet."""

    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class ErrorView:
    """A kept error in words for a person; `retry_at` is on the engine's monotonic clock."""

    title: str
    message: str
    next_step: str | None
    retry_at: float | None


@dataclass(frozen=True, slots=True)
class EncoderView:
    """One encoder at one instant; it may inform a decision, but the slot checks again before it acts.

    Times are seconds on the engine's monotonic clock, durations are seconds, sizes are bytes;
    `None` means unknown or not yet, never zero.
    """

    name: str
    kind: str
    model: str
    aliases: tuple[str, ...]
    state: State
    idle_timeout_seconds: float
    """Device to RAM after this long without use; 0 = never."""
    unload_timeout_seconds: float
    """RAM to disk this long after stepping down; 0 = never."""
    keep_alive_seconds: float | None = None
    """What a request set over the idle timeout until the next step down: 0 = unload when it ends, negative = stay."""
    pinned: bool = False
    is_default: bool = False
    revision: str | None = None
    device: str | None = None
    chosen_device: str | None = None
    """The device that the settings mean and that works; `device` is another where that one has no room."""
    streamable: bool | None = None
    """Whether the model has blocks that can be streamed; None before its first load."""
    bytes_on_device: int | None = 0
    bytes_in_ram: int | None = 0
    bytes_total: int | None = None
    in_flight: int = 0
    queued: int = 0
    last_used: float | None = None
    """When the last use, or a load that nobody used yet, ended."""
    last_used_by: str | None = None
    came_up_at: float | None = None
    """When the weights last came up, to RAM or to their device, until they step down."""
    stepped_down_at: float | None = None
    stepped_down_because: str | None = None
    """Why the weights went down, in words, until they come up again."""
    import_seconds: float | None = None
    load_seconds: float | None = None
    first_encode_seconds: float | None = None
    reload_seconds: float | None = None
    offload_seconds: float | None = None
    loads: int = 0
    error: ErrorView | None = None
    note: str | None = None
    """What a person should know although nothing failed: how or why it stands where it does, why it cannot rest in
    RAM, or what was not given back."""
    ignored_options: tuple[str, ...] = ()
    part: str | None = None
    """Which part of an encoder it is; None for a whole one."""
    in_flight_of_sharers: int = 0
    """Requests to others that are served by the same weights."""
    shared_with: tuple[str, ...] = ()
    """Other encoders that are served by the same weights: bytes, rung and timers are theirs too, and counted once."""
    download: Download | None = None
    """What is being fetched from a model hub right now, None for nothing."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What the last load found out about the model: `dimension`, `max_tokens`, `labels`, ...; plain data for JSON."""

    @property
    def awake(self) -> bool:
        """Whether the weights stand where they compute."""
        return self.state is State.ON_DEVICE

    @property
    def status(self) -> str:
        """The state in words for a person."""
        if self.state is State.ON_DEVICE:
            return "running" if self.in_flight else "idle"
        return _STATUS[self.state]

    def next_deadline(self, now: float) -> float | None:
        """When this encoder could step down next if nobody used it again, or None for never.

        One in use answers `now` plus its timeout: it cannot step down before that, so a sleeper that
        wakes then misses nothing. One that unloads when its requests end answers None until then.
        """
        if self.pinned:
            return None
        if self.state is State.ON_DEVICE:
            return self._idle_deadline(now)
        if self.state is State.IN_RAM and self.unload_timeout_seconds > 0 and self.stepped_down_at is not None:
            return self.stepped_down_at + self.unload_timeout_seconds
        return None

    def _idle_deadline(self, now: float) -> float | None:
        busy = self.in_flight + self.in_flight_of_sharers
        since = now if busy or self.last_used is None else self.last_used
        if self.keep_alive_seconds is None:
            return since + self.idle_timeout_seconds if self.idle_timeout_seconds > 0 else None
        if self.keep_alive_seconds < 0 or (self.keep_alive_seconds == 0 and busy):
            return None
        return since + self.keep_alive_seconds


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a control verb ended: `done`, `busy` (in use or moving) or `refused`; `reason` says what there is to add."""

    name: str
    result: str
    state: State
    freed_bytes: int | None = 0
    seconds: float = 0.0
    reason: str | None = None


_WORST_FIRST: Final = ("refused", "busy", "done")


def together(name: str, outcomes: Sequence[Outcome]) -> Outcome:
    """Return how a verb ended for an encoder of several parts: as it did for the part that went worst."""
    worst = min(outcomes, key=lambda outcome: _WORST_FIRST.index(outcome.result))
    freed = [outcome.freed_bytes for outcome in outcomes]
    return replace(
        worst,
        name=name,
        freed_bytes=None if None in freed else sum(filter(None, freed)),
        seconds=sum(outcome.seconds for outcome in outcomes),
    )

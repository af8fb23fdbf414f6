"""Values for observers: the rungs of the ladder, frozen views of weights and encoders, outcomes of control verbs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Final


class State(StrEnum):
    """One rung of the ladder, spelled as the HTTP endpoint spells it."""

    ON_DEVICE = "on_device"
    """Weights on the device that computes; the next use pays nothing."""
    STEPPING_DOWN = "stepping_down"
    """Weights stepping down; new leases wait, then bring them up again."""
    IN_RAM = "in_ram"
    """Weights off the device but reachable at memory speed; tokenizer and skeleton kept."""
    UNLOADED = "unloaded"
    """Nothing but the configuration; the next use pays a load."""
    LOADING = "loading"
    """Weights coming up; one caller loads, the others wait."""
    FAILED = "failed"
    """The last load failed; a retry is allowed after a delay that grows."""
    UNAVAILABLE = "unavailable"
    """Trying cannot help: a package or a file is missing, and the error says which."""


RESTING: Final = frozenset({State.ON_DEVICE, State.IN_RAM, State.UNLOADED, State.FAILED, State.UNAVAILABLE})
"""States that last until a request or a timer changes them; the others end by themselves."""

_STATUS: Final = {
    State.STEPPING_DOWN: "stepping down",
    State.IN_RAM: "in RAM",
    State.UNLOADED: "idle (not loaded)",
    State.LOADING: "loading",
    State.FAILED: "failed",
    State.UNAVAILABLE: "unavailable",
}


@dataclass(frozen=True, slots=True)
class Download:
    """The progress of a download of a model's files, in bytes; `total` None = not known yet."""

    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class ErrorView:
    """A kept error in words for the user; `retry_at` is on the engine's monotonic clock."""

    title: str
    message: str
    next_step: str | None
    retry_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotView:
    """One set of weights at one instant; it may inform a decision, but the slot checks again before it acts.

    Times are seconds on the engine's monotonic clock, durations are seconds, sizes are bytes;
    `None` means unknown or not yet, never zero.
    """

    name: str
    state: State
    idle_timeout_seconds: float
    """Device to RAM after this long without use; 0 = never."""
    unload_timeout_seconds: float
    """RAM to disk this long after stepping down; 0 = never."""
    keep_alive_seconds: float | None = None
    """Seconds that a request set over the idle timeout until the next step down: 0 = unload, negative = stay."""
    pinned: bool = False
    revision: str | None = None
    device: str | None = None
    chosen_device: str | None = None
    """The working device that the settings mean; `device` is another one where that one has no room."""
    streamable: bool | None = None
    """Whether the model has blocks that can be streamed; None before its first load."""
    bytes_on_device: int | None = 0
    bytes_in_ram: int | None = 0
    bytes_total: int | None = None
    in_flight: int = 0
    queued: int = 0
    last_used: float | None = None
    """The end of the last use, or of a load that was not used yet."""
    last_used_by: str | None = None
    came_up_at: float | None = None
    """The instant at which the weights last reached RAM or their device, until they step down."""
    stepped_down_at: float | None = None
    stepped_down_because: str | None = None
    """The reason of the last step down, in words, until the weights come up again."""
    import_seconds: float | None = None
    load_seconds: float | None = None
    first_encode_seconds: float | None = None
    reload_seconds: float | None = None
    offload_seconds: float | None = None
    loads: int = 0
    error: ErrorView | None = None
    note: str | None = None
    """Words for the user although nothing failed: why the weights are on this device, properties of the model that were
    assumed, why the weights cannot wait in RAM, or how much was not given back."""
    download: Download | None = None
    """The download from a model hub that runs now; None for none."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Facts about the model from its last load: `dimension`, `max_tokens`, `labels`, ...; plain data for JSON."""

    @property
    def awake(self) -> bool:
        """Whether the weights are on the device where they compute."""
        return self.state is State.ON_DEVICE

    @property
    def busy(self) -> int:
        """Requests that run on the weights now."""
        return self.in_flight

    def next_deadline(self, now: float) -> float | None:
        """Return the instant of the next step down if there is no further use, or None for never.

        While in use that is `now` plus the timeout: no step down can come before it, so a sleeper that wakes then
        misses nothing. Weights that unload when their requests end have no deadline until then.
        """
        if self.pinned:
            return None
        if self.state is State.ON_DEVICE:
            return self._idle_deadline(now)
        if self.state is State.IN_RAM and self.unload_timeout_seconds > 0 and self.stepped_down_at is not None:
            return self.stepped_down_at + self.unload_timeout_seconds
        return None

    def _idle_deadline(self, now: float) -> float | None:
        since = now if self.busy or self.last_used is None else self.last_used
        if self.keep_alive_seconds is None:
            return since + self.idle_timeout_seconds if self.idle_timeout_seconds > 0 else None
        if self.keep_alive_seconds < 0 or (self.keep_alive_seconds == 0 and self.busy):
            return None
        return since + self.keep_alive_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderView(SlotView):
    """One encoder at one instant: its set of weights, and what is its own; `in_flight` counts its own requests."""

    kind: str
    model: str
    aliases: tuple[str, ...]
    is_default: bool = False
    ignored_options: tuple[str, ...] = ()
    """`OPTION: WHY` for each option that changes nothing for this encoder."""
    part: str | None = None
    """The part of an encoder that it is; None for a whole one."""
    in_flight_of_sharers: int = 0
    """Requests to other encoders on the same weights."""
    shared_with: tuple[str, ...] = ()
    """Other encoders on the same weights: bytes, rung and timers are theirs too, and counted once."""
    truncated_inputs: int = 0
    """Inputs since the start that were longer than the model reads and were cut."""
    truncated_tokens: int = 0
    """Tokens that were left out of them together, at least."""

    @classmethod
    def of(cls, slot: SlotView, **own: Any) -> EncoderView:
        """Return the view of an encoder on the weights of `slot`; `own` are the fields that `SlotView` lacks."""
        return cls(**{field.name: getattr(slot, field.name) for field in fields(slot)}, **own)

    @property
    def busy(self) -> int:
        """Requests that run on the weights now, those of other encoders included."""
        return self.in_flight + self.in_flight_of_sharers

    @property
    def status(self) -> str:
        """The state in words for the user."""
        if self.state is State.ON_DEVICE:
            return "running" if self.in_flight else "idle"
        return _STATUS[self.state]


class Result(StrEnum):
    """The end of a control verb, spelled as the HTTP endpoint spells it; the worst first."""

    REFUSED = "refused"
    """Not done, and it will not be done as things are: pinned, or a failed load."""
    BUSY = "busy"
    """Not done, because the weights are in use or on their way."""
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a control verb; `reason` says in words what there is to add."""

    name: str
    result: Result
    state: State
    freed_bytes: int | None = 0
    seconds: float = 0.0
    reason: str | None = None
    pinned_by: tuple[str, ...] = ()
    """Names of the encoders whose pins keep the weights on their rung."""

    @classmethod
    def of_parts(cls, name: str, outcomes: Sequence[Outcome]) -> Outcome:
        """Return the outcome for an encoder of several parts: that of the part that went worst, the bytes of all."""
        worst = min(outcomes, key=lambda outcome: list(Result).index(outcome.result))
        freed = [outcome.freed_bytes for outcome in outcomes]
        return replace(
            worst,
            name=name,
            freed_bytes=None if None in freed else sum(filter(None, freed)),
            seconds=sum(outcome.seconds for outcome in outcomes),
        )

"""One configured encoder: its settings, its slot, and the worker that runs its requests."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from engine.encoders.ignored import ignored_options
from engine.encoders.sharing import weights_key
from engine.errors import Closed, NotFinite, PilotlightError, QueueFull
from engine.operations.cut import NOTHING_CUT, cut_of
from engine.serving.execution import Relief, execute
from engine.serving.worker import Worker
from engine.settings.config import EncoderConfig, Hardware
from engine.settings.effective import Eagerness, Effective
from engine.slot.slot import Slot
from engine.state import EncoderView

T = TypeVar("T")


class Usage:
    """The requests and the pin of one encoder, apart from others on the same weights; any thread may use it."""

    def __init__(self, *, pinned: bool) -> None:
        self.pinned = pinned
        """Whether it holds the weights where they are; others may do so too."""
        self.in_flight = 0
        self.cut = NOTHING_CUT
        """The part of all inputs that the model did not read."""
        self.last_used_by: str | None = None
        self.keep_alive: float | None = None
        """Seconds that a request set over its idle timeout; void once the weights stepped down."""
        self._lock = threading.Lock()

    @contextmanager
    def counted(self, used_by: str | None) -> Iterator[None]:
        """Count one request of `used_by` while it runs."""
        with self._lock:
            self.in_flight += 1
        try:
            yield
        finally:
            with self._lock:
                self.in_flight -= 1
                self.last_used_by = used_by or self.last_used_by

    def note_cut(self, result: object) -> None:
        """Add the `cut` of a result, if it has one."""
        cut = cut_of(result)
        if cut != NOTHING_CUT:
            with self._lock:
                self.cut += cut


@dataclass(frozen=True, slots=True)
class Encoder:
    """One encoder in force; new settings make a new value, on the same slot where that is possible."""

    config: EncoderConfig
    effective: Effective
    slot: Slot
    worker: Worker
    relief: Relief
    usage: Usage
    made_for: tuple[object, ...]
    """The `slot_key` of the settings that the slot was made for, perhaps those of another encoder on it."""

    @property
    def leads(self) -> bool:
        """Whether its slot is named for it, and not for another encoder on the same weights."""
        return self.slot.name == self.config.name

    def with_settings(self, config: EncoderConfig, effective: Effective, before: Encoder | None) -> Encoder:
        """Return the encoder of `config` on these weights; `before` had its name until now.

        Where that one had the same weights, a pin that the settings do not change stays as it was set by hand.
        """
        key = weights_key(config, effective.device)
        if before is None or weights_key(before.config, before.effective.device) != key:
            usage = Usage(pinned=config.pin)
        else:
            usage = before.usage
            if before.config.pin != config.pin:
                usage.pinned = config.pin
        return replace(self, config=config, effective=effective, usage=usage)

    def run(self, operation: Callable[[Any], T], used_by: str | None, keep_alive: float | None) -> T:
        """Return the result of `operation` on the adapter, under a lease; raises as `execute`."""
        with self.usage.counted(used_by):
            try:
                result = execute(self.slot, self.relief, operation, used_by, keep_alive)
            except NotFinite as error:
                error.name_encoder(self.config.name)
                raise
        self.usage.note_cut(result)
        return result

    def view(self, hardware: Hardware, sharers: tuple[Encoder, ...], *, measured: bool = False) -> EncoderView:
        """Return a snapshot; `sharers` are the others on the same weights, `measured` is as in `Slot.view`."""
        config, slot = self.config, self.slot.view(measured=measured)
        leader = next((other.config for other in sharers if other.leads), None)
        ignored = ignored_options(
            replace(config, pin=slot.pinned),
            hardware,
            device=slot.chosen_device,
            streamable=slot.streamable,
            leader=leader,
        )
        metadata = slot.metadata
        if config.score_floor is not None:
            metadata = {**metadata, "score_floor": config.score_floor}
        view = EncoderView.of(
            replace(slot, name=config.name, metadata=metadata, queued=self.worker.queued),
            kind=config.kind,
            model=config.model,
            aliases=config.aliases,
            is_default=config.default,
            part=config.part,
            ignored_options=ignored,
            truncated_inputs=self.usage.cut.inputs,
            truncated_tokens=self.usage.cut.tokens,
        )
        if not sharers:
            return view
        own = self.usage.in_flight
        return replace(
            view,
            in_flight=own,
            in_flight_of_sharers=max(0, slot.in_flight - own),
            last_used_by=self.usage.last_used_by,
            shared_with=tuple(other.config.name for other in sharers),
        )

    def bring_up(self) -> None:
        """Start to bring it as far up as its settings ask without a use, on its own thread."""
        match self.effective.eagerness:
            case Eagerness.TO_DEVICE:
                self.queue_climb(Slot.warm)
            case Eagerness.TO_RAM:
                self.queue_climb(Slot.preload)
            case Eagerness.LAZY:
                pass

    def queue_climb(self, climb: Callable[[Slot], None]) -> Future[bool] | None:
        """Queue a climb and return the future of its success; the slot keeps and shows the error of a failure.

        None where the queue is full or closed: the requests in it bring the encoder up anyway.
        """
        with contextlib.suppress(QueueFull, Closed):
            return self.worker.submit(partial(_succeeds, climb, self.slot))
        return None

    def retire(self) -> None:
        """Close an encoder that the settings no longer name, after the requests in its queue."""
        self.worker.finish(partial(self.slot.close, timeout=0.0))


def _succeeds(climb: Callable[[Slot], None], slot: Slot) -> bool:
    try:
        climb(slot)
    except PilotlightError:
        return False
    return True

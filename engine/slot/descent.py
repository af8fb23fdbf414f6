"""Take an adapter's weights down, and say honestly what that gave back."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from engine.adapters.protocol import Adapter
from engine.devices.footprint import UNKNOWN, Footprint
from engine.devices.placement import CPU
from engine.errors import CannotRest, EncoderError, MoveFailed
from engine.state import State
from engine.units import in_words

_log = logging.getLogger(__name__)

_ENOUGH: Final = 0.95
"""Share of the expected bytes that a step must free to count as done."""


@dataclass(frozen=True, slots=True)
class Descent:
    """Where the weights ended, what is left of them and what was freed (bytes), and what a person should know."""

    rung: State
    after: Footprint
    freed: int | None
    note: str | None = None
    error: EncoderError | None = None
    done: bool = True
    """Whether the memory was given back, as far as the system says."""


def descend(name: str, adapter: Adapter, target: State, *, device: str) -> Descent:
    """Move the weights off `device` to `target`, or further down where they cannot rest there; nobody may use them.

    Raises nothing that an adapter may raise: a failed move to RAM ends in unloading.
    """
    note, error = None, None
    before = look(name, adapter)
    if target is State.IN_RAM:
        try:
            resting = _rest(adapter, device)
            if resting.done:
                return resting
            note = resting.note
        except CannotRest as cannot:
            note = cannot.message
        except Exception as failure:  # noqa: BLE001 - the adapter edge
            _log.exception("%s could not be moved to RAM, so it is unloaded", name)
            note = f"It could not be moved to RAM, so it was unloaded: {failure}"
            error = MoveFailed(f"{name}: {note}")
    after, gone = drop(name, adapter)
    if not gone:
        note = kept(after)
        error = MoveFailed(f"{name}: {note}", title="Memory not given back")
        _log.warning("%s: %s", name, note)
    return Descent(State.UNLOADED, after, _difference(before.held, after.held), note, error, gone)


def drop(name: str, adapter: Adapter) -> tuple[Footprint, bool]:
    """Unload, and return what is left and whether all of it is gone; one that does not unload cleanly is logged."""
    try:
        gone = adapter.unload()
    except Exception:  # noqa: BLE001 - the adapter edge
        _log.exception("%s did not unload cleanly", name)
        gone = False
    return look(name, adapter), gone


def look(name: str, adapter: Adapter) -> Footprint:
    """Return where the weights are now; unknown, where the adapter cannot say."""
    try:
        return adapter.footprint()
    except Exception:  # noqa: BLE001 - the adapter edge
        _log.exception("the memory of %s cannot be measured", name)
        return UNKNOWN


def kept(left: Footprint) -> str:
    """Say in words what was not given back."""
    size = in_words(left.held) if left.held else "Part"
    return f"{size} of its weights was not given back, because something still refers to them."


def _rest(adapter: Adapter, device: str) -> Descent:
    """Move to RAM and compare with what that should free; what leaves a GPU may stay in RAM."""
    if adapter.cannot_rest is not None:
        raise CannotRest(adapter.cannot_rest)
    before = adapter.offload()
    after = adapter.footprint()
    on_cpu = device == CPU
    freed = _difference(before.held, after.held) if on_cpu else _difference(before.on_device, after.on_device)
    if freed is None or before.on_device is None or freed >= _ENOUGH * before.on_device:
        return Descent(State.IN_RAM, after, freed)
    words = f"The system took back only {in_words(freed)} of {in_words(before.on_device)}, so it was unloaded."
    return Descent(State.IN_RAM, after, freed, words, done=False)


def _difference(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else before - after

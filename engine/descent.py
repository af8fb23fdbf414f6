"""Take an adapter's weights down, and say honestly what that gave back."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from engine.adapters.protocol import Adapter
from engine.errors import CannotRest, EncoderError, MoveFailed
from engine.state import State
from engine.weights.footprint import Footprint

_log = logging.getLogger(__name__)

_ENOUGH: Final = 0.95
"""Share of the expected bytes that a step must free to count as done."""


@dataclass(frozen=True, slots=True)
class Descent:
    """Where the weights ended, what is left of them and what was freed (bytes), and what a person should know."""

    rung: State
    after: Footprint
    freed: int
    note: str | None = None
    error: EncoderError | None = None
    done: bool = True
    """Whether the memory really was given back."""


def descend(name: str, adapter: Adapter, target: State, *, device: str) -> Descent:
    """Move the weights off `device` to `target`, or further down where they cannot rest there; nobody may use them.

    Raises nothing that an adapter may raise: a failed move to RAM ends in unloading.
    """
    before = look(name, adapter)
    note = adapter.cannot_rest if target is State.IN_RAM else None
    error = None
    if target is State.IN_RAM and note is None:
        try:
            expected = adapter.offload()
            after = adapter.footprint()
            # What leaves a GPU may well stay in RAM; what leaves a CPU leaves RAM.
            freed = before.held - after.held if device == "cpu" else before.on_device - after.on_device
            if freed >= _ENOUGH * expected:
                return Descent(State.IN_RAM, after, freed)
            note = f"The system took back only {_mib(freed)} of {_mib(expected)}, so it was unloaded."
        except CannotRest as cannot:
            note = cannot.message
        except Exception as failure:  # noqa: BLE001 - the adapter edge
            _log.exception("%s could not be moved to RAM, so it is unloaded", name)
            note = f"It could not be moved to RAM, so it was unloaded: {failure}"
            error = MoveFailed(f"{name}: {note}")
    after = drop(name, adapter)
    done = after.held <= (1 - _ENOUGH) * before.held
    if not done:
        note = kept(after)
        error = MoveFailed(f"{name}: {note}", title="Memory not given back")
        _log.warning("%s: %s", name, note)
    return Descent(State.UNLOADED, after, before.held - after.held, note, error, done)


def drop(name: str, adapter: Adapter) -> Footprint:
    """Unload and return what is left; an adapter that does not do so cleanly is logged."""
    try:
        adapter.unload()
    except Exception:  # noqa: BLE001 - the adapter edge
        _log.exception("%s did not unload cleanly", name)
    return look(name, adapter)


def kept(left: Footprint) -> str:
    """Say in words what was not given back."""
    return f"{_mib(left.held)} of its weights were not given back, because something still refers to them."


def look(name: str, adapter: Adapter) -> Footprint:
    """Return where the weights are now; nothing that is known, where the adapter cannot say."""
    try:
        return adapter.footprint()
    except Exception:  # noqa: BLE001 - the adapter edge
        _log.exception("the memory of %s cannot be measured", name)
        return Footprint(0, 0, 0)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"

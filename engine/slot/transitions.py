"""The moves of an adapter's weights between rungs, without state; their errors are ours and keep no tensors alive."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from engine.adapters.protocol import Adapter, Loaded
from engine.devices.placement import CPU, UNKNOWN, Footprint, Placement
from engine.errors import (
    CannotRest,
    DeviceLost,
    EncoderError,
    FilesChanged,
    LoadFailed,
    MoveFailed,
    NoRoom,
    OutOfMemory,
    Unavailable,
    clear_frames,
)
from engine.slot.admission import Admission
from engine.slot.refusal import Refusal
from engine.state import State
from engine.units import in_words

_log = logging.getLogger(__name__)

_ENOUGH: Final = 0.95
"""Share of the expected bytes that a step must free to count as done."""


@dataclass(frozen=True, slots=True)
class BroughtUp:
    """The result of a climb."""

    footprint: Footprint
    loaded: Loaded | None
    """None where nothing had to be read."""
    chosen_device: str | None = None
    """The working device that the settings mean; known after a climb to a device."""
    placement: Placement | None = None
    """The placement of the weights; None where they went no further than to RAM."""
    note: str | None = None
    """Words for the user about that placement."""


@dataclass(frozen=True, slots=True)
class SteppedDown:
    """The result of a step down: the rung that was reached, what is left there and what was freed (bytes)."""

    rung: State
    after: Footprint
    freed: int | None
    note: str | None = None
    """Words for the user."""
    error: EncoderError | None = None
    done: bool = True
    """Whether the memory was given back, as far as the system says."""


@dataclass(frozen=True, slots=True)
class NoPlace:
    """The result of a climb that no device had room for."""

    error: NoRoom
    resting: SteppedDown
    """The rung on which the weights wait instead."""
    loaded: Loaded | None
    """None where nothing had to be read."""


def bring_up(
    name: str,
    adapter: Adapter,
    origin: State,
    target: State,
    *,
    device: str | None,
    fault_in: bool,
    admission: Admission,
    refusal: Refusal,
) -> BroughtUp | NoPlace:
    """Bring the weights from `origin` to `target` (IN_RAM or ON_DEVICE), with `fault_in` every page of them.

    `device` is the one they were read for, where they are in RAM. Raises Unavailable, which `refusal` keeps, or
    LoadFailed for every other error of the adapter; the caller must then unload what is half up.
    """
    try:
        if origin is State.IN_RAM and (changed := adapter.stale()):
            _log.info("%s is loaded again: %s", name, changed)
            unload(name, adapter)
            origin = State.UNLOADED
        if origin is not State.IN_RAM:
            with refusal.kept(of_probe=True):
                adapter.probe()
        with refusal.kept():
            loaded = None if origin is State.IN_RAM else _load(name, adapter)
            device = loaded.device if loaded else device
            if fault_in:
                adapter.fault_in()
            if target is State.IN_RAM:
                return BroughtUp(adapter.footprint(), loaded)
            try:
                return _to_device(name, adapter, device, loaded, admission)
            except DeviceLost as error:
                _log.warning("%s is read again: %s", name, error.message)
                clear_frames(error)
            unload(name, adapter)
            loaded = _load(name, adapter)
            return _to_device(name, adapter, loaded.device, loaded, admission)
    except Unavailable as error:
        clear_frames(error)
        raise
    except LoadFailed as error:
        _log.warning("%s could not be brought up: %s", name, error, exc_info=error.__cause__)
        clear_frames(error)
        raise
    except Exception as error:
        _log.exception("%s could not be brought up", name)
        clear_frames(error)
        raise LoadFailed(
            f"{name} could not be loaded: {type(error).__name__}: {error}",
            next_step="The log has the details; a retry follows at the next use after a delay.",
        ) from error


def step_down(name: str, adapter: Adapter, target: State, *, device: str) -> SteppedDown:
    """Move weights that are not in use off `device` to `target`, or unload them where they cannot wait there.

    Raises no error of the adapter: a failed move to RAM ends in unloading.
    """
    note, error = None, None
    before = measure(name, adapter)
    if target is State.IN_RAM:
        try:
            resting = _to_ram(adapter, device)
            if resting.done:
                return resting
            note = resting.note
        except CannotRest as cannot:
            note = cannot.message
        except Exception as failure:  # noqa: BLE001 - the adapter edge
            _log.exception("%s could not be moved to RAM, so it is unloaded", name)
            note = f"It could not be moved to RAM, so it was unloaded: {failure}"
            error = MoveFailed(f"{name}: {note}")
    after, gone = unload(name, adapter)
    if not gone:
        note = words_for_leftovers(after)
        error = MoveFailed(f"{name}: {note}", title="Memory not given back")
        _log.warning("%s: %s", name, note)
    return SteppedDown(State.UNLOADED, after, _difference(before.held, after.held), note, error, gone)


def unload(name: str, adapter: Adapter) -> tuple[Footprint, bool]:
    """Unload, and return what is left and whether all of it is gone; a failure is logged."""
    try:
        gone = adapter.unload()
    except Exception:  # noqa: BLE001 - the adapter edge
        _log.exception("%s did not unload cleanly", name)
        gone = False
    return measure(name, adapter), gone


def measure(name: str, adapter: Adapter) -> Footprint:
    """Return the resident bytes of the weights; unknown where the adapter cannot say."""
    try:
        return adapter.footprint()
    except Exception:  # noqa: BLE001 - the adapter edge
        _log.exception("the memory of %s cannot be measured", name)
        return UNKNOWN


def words_for_leftovers(left: Footprint) -> str:
    """Return in words how much was not given back."""
    size = in_words(left.held) if left.held else "Part"
    return f"{size} of its weights was not given back, because something still refers to them."


def _to_device(
    name: str, adapter: Adapter, device: str | None, loaded: Loaded | None, admission: Admission
) -> BroughtUp | NoPlace:
    """Go from RAM to a device, in the first placement that there is room for."""
    needs = adapter.needs()
    with ExitStack() as alone:
        alone.enter_context(admission.exclusive(needs.device))
        try:
            for placement in admission.make_room(name, needs):
                if placement.device == CPU:
                    alone.close()
                if placement.device != device:
                    unload(name, adapter)
                    loaded = _load(name, adapter, on=placement.device)
                    device = placement.device
                try:
                    note = adapter.resume(placement)
                except OutOfMemory as error:
                    _log.warning("%s does not fit: %s", name, error.message)
                    clear_frames(error)
                else:
                    words = " ".join(filter(None, (placement.reason, note)))
                    return BroughtUp(adapter.footprint(), loaded, needs.device, placement, words or None)
        except NoRoom as error:
            _log.warning("%s waits in RAM: %s", name, error.message)
            resting = step_down(name, adapter, State.IN_RAM, device=device or needs.device)
            return NoPlace(error, resting, loaded)
    raise AssertionError("an admission ends with a placement that fits, or with NoRoom")


def _to_ram(adapter: Adapter, device: str) -> SteppedDown:
    """Move to RAM and compare with what that must free; weights that leave a GPU may remain in RAM."""
    if adapter.cannot_rest is not None:
        raise CannotRest(adapter.cannot_rest)
    before = adapter.offload()
    after = adapter.footprint()
    on_cpu = device == CPU
    freed = _difference(before.held, after.held) if on_cpu else _difference(before.on_device, after.on_device)
    if freed is None or before.on_device is None or freed >= _ENOUGH * before.on_device:
        return SteppedDown(State.IN_RAM, after, freed)
    words = f"The system took back only {in_words(freed)} of {in_words(before.on_device)}, so it was unloaded."
    return SteppedDown(State.IN_RAM, after, freed, words, done=False)


def _load(name: str, adapter: Adapter, on: str | None = None) -> Loaded:
    """Load; once more where a file was replaced meanwhile, as a download or an editor does at its end."""
    try:
        return adapter.load(on)
    except FilesChanged as error:
        _log.info("%s is read again: %s", name, error.message)
        clear_frames(error)
    unload(name, adapter)
    return adapter.load(on)


def _difference(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else before - after

"""Bring an adapter's weights up; what goes wrong on the way comes out as one of our errors and holds no memory."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass

from engine.adapters.protocol import Adapter, Loaded
from engine.devices.footprint import Footprint
from engine.devices.placement import CPU, Placement
from engine.errors import DeviceLost, FilesChanged, LoadFailed, NoRoom, OutOfMemory, Unavailable, clear_frames
from engine.slot.admission import Admission
from engine.slot.descent import Descent, descend, drop
from engine.state import State

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ascent:
    """What a climb found out."""

    footprint: Footprint
    loaded: Loaded | None
    """None where nothing had to be read."""
    chosen_device: str | None = None
    """The device that the settings mean and that works; known after a climb to a device."""
    placement: Placement | None = None
    """Where the weights stand now; None where they went no further than to RAM."""
    note: str | None = None
    """What a person should know about how they stand there."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A climb that no device had room for, and where the weights rest."""

    error: NoRoom
    resting: Descent
    loaded: Loaded | None
    """None where nothing had to be read."""


def ascend(
    name: str, adapter: Adapter, origin: State, target: State, *, device: str | None, fault_in: bool, room: Admission
) -> Ascent | Refusal:
    """Bring the weights from `origin` to `target` (IN_RAM or ON_DEVICE), with `fault_in` every page of them.

    `device` is what they were read for, where they are in RAM. Raises Unavailable, or LoadFailed for whatever else the
    adapter meets; what is half up then is the caller's to drop.
    """
    loaded = None
    try:
        if origin is State.IN_RAM and (changed := adapter.stale()):
            _log.info("%s is loaded again: %s", name, changed)
            drop(name, adapter)
            origin = State.UNLOADED
        if origin is not State.IN_RAM:
            adapter.probe()
            loaded = _loaded(name, adapter)
            device = loaded.device
        if fault_in:
            adapter.fault_in()
        if target is State.ON_DEVICE:
            try:
                return _rise(name, adapter, device, loaded, room)
            except DeviceLost as error:
                _log.warning("%s is read again: %s", name, error.message)
                clear_frames(error)
            drop(name, adapter)
            loaded = _loaded(name, adapter)
            return _rise(name, adapter, loaded.device, loaded, room)
        return Ascent(adapter.footprint(), loaded)
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


def _rise(name: str, adapter: Adapter, device: str | None, loaded: Loaded | None, room: Admission) -> Ascent | Refusal:
    """Go from RAM up to a device, in the first of the ways that there is room for."""
    needs = adapter.needs()
    with ExitStack() as turn:
        turn.enter_context(room.turn(needs.device))
        try:
            for placement in room.placements(name, needs):
                if placement.device == CPU:
                    turn.close()
                if placement.device != device:
                    drop(name, adapter)
                    loaded = _loaded(name, adapter, on=placement.device)
                    device = placement.device
                try:
                    note = adapter.resume(placement)
                except OutOfMemory as error:
                    _log.warning("%s does not fit: %s", name, error.message)
                    clear_frames(error)
                else:
                    words = " ".join(filter(None, (placement.reason, note)))
                    return Ascent(adapter.footprint(), loaded, needs.device, placement, words or None)
        except NoRoom as error:
            _log.warning("%s waits in RAM: %s", name, error.message)
            resting = descend(name, adapter, State.IN_RAM, device=device or needs.device)
            return Refusal(error, resting, loaded)
    raise AssertionError("an admission ends with a placement that fits, or with NoRoom")


def _loaded(name: str, adapter: Adapter, on: str | None = None) -> Loaded:
    """Load; once more where a file was replaced meanwhile, as a download or an editor does at its end."""
    try:
        return adapter.load(on)
    except FilesChanged as error:
        _log.info("%s is read again: %s", name, error.message)
        clear_frames(error)
    drop(name, adapter)
    return adapter.load(on)

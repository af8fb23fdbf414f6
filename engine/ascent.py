"""Bring an adapter's weights up; what goes wrong on the way comes out as one of our errors and holds no memory."""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass

from engine.adapters.protocol import Adapter, Loaded
from engine.descent import drop
from engine.errors import FilesChanged, LoadFailed, Unavailable
from engine.state import State
from engine.weights.footprint import Footprint

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ascent:
    """What a climb found out; `loaded` is None where nothing had to be read."""

    footprint: Footprint
    loaded: Loaded | None


def ascend(name: str, adapter: Adapter, origin: State, target: State, *, fault_in: bool) -> Ascent:
    """Bring the weights from `origin` to `target` (IN_RAM or ON_DEVICE), with `fault_in` every page of them.

    Raises Unavailable, or LoadFailed for whatever else the adapter meets; what is half up then is the caller's to
    drop.
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
        if fault_in:
            adapter.fault_in()
        if target is State.ON_DEVICE:
            adapter.resume()
        return Ascent(adapter.footprint(), loaded)
    except Unavailable as error:
        _let_go(error)
        raise
    except LoadFailed as error:
        _log.warning("%s could not be brought up: %s", name, error, exc_info=error.__cause__)
        _let_go(error)
        raise
    except Exception as error:
        _log.exception("%s could not be brought up", name)
        _let_go(error)
        raise LoadFailed(
            f"{name} could not be loaded: {type(error).__name__}: {error}",
            next_step="The log has the details; a retry follows at the next use after a delay.",
        ) from error


def _loaded(name: str, adapter: Adapter) -> Loaded:
    """Load; once more where a file was replaced meanwhile, as a download or an editor does at its end."""
    try:
        return adapter.load()
    except FilesChanged as error:
        _log.info("%s is read again: %s", name, error.message)
        _let_go(error)
    drop(name, adapter)
    return adapter.load()


def _let_go(error: BaseException) -> None:
    """Empty the frames that the error came through: they would keep half a model in memory as long as it is around."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__

"""A device that stops computing, as after a driver's reset, a deep sleep or a wrong kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from engine.devices.choice import probe
from engine.devices.placement import CPU
from engine.errors import DeviceLost, PilotlightError, clear_frames


@contextmanager
def lost_device(device: str) -> Iterator[None]:
    """Raise DeviceLost for whatever fails where `device` afterwards computes nothing any more; all else passes."""
    try:
        yield
    except PilotlightError:
        raise
    except Exception as error:
        if device == CPU or (failure := probe(device)) is None:
            raise
        # What the error's frames hold lay on the device.
        clear_frames(error)
        raise DeviceLost(
            f"{device} does not compute any more: {failure}.",
            next_step="Restart Pilotlight to use it again; meanwhile the CPU computes.",
        ) from error

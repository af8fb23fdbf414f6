"""The loss of a device, as after a driver's reset, a deep sleep or a faulty kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from engine.devices.choice import probe
from engine.devices.placement import CPU
from engine.errors import DeviceLost, PilotlightError, clear_frames


@contextmanager
def lost_device(device: str) -> Iterator[None]:
    """Raise DeviceLost for any error after which `device` no longer computes; other errors pass unchanged."""
    try:
        yield
    except PilotlightError:
        raise
    except Exception as error:
        if device == CPU or (failure := probe(device)) is None:
            raise
        # The frames of the error hold tensors of the lost device.
        clear_frames(error)
        raise DeviceLost(
            f"{device} does not compute any more: {failure}.",
            next_step="Restart Pilotlight to use it again; meanwhile the CPU computes.",
        ) from error

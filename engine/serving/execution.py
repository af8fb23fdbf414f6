"""The run of one request on its slot, also where its device has no memory for a batch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from engine.errors import DeviceLost, NoRoom, OutOfMemory
from engine.slot.slot import Slot
from engine.state import Result

_log = logging.getLogger(__name__)

_MOST_LOST: Final = 1
"""Devices that one request may lose; the next one has computed something right before."""
_ASK_FOR_LESS: Final = "Send fewer or shorter inputs at once, or close what else uses the GPU."
_UNPIN: Final = "Unpin it, so that it may come up in another way, or raise max_vram."

T = TypeVar("T")


class Relief(Protocol):
    """The owner of the devices' memory, as a request sees it."""

    def free_device(self, device: str, *, except_for: str) -> None:
        """Make every encoder on `device` but `except_for` step down that may, at once."""

    def use_less(self, name: str) -> bool:
        """Let the next climb of an encoder begin one mode further down; returns False when there is none."""


def execute(
    slot: Slot, relief: Relief, operation: Callable[[Any], T], used_by: str | None, keep_alive: float | None
) -> T:
    """Return the result of `operation` on the encoder's adapter, under a lease.

    Where its device has no memory for it, other encoders step down and it runs once more; then its own encoder comes up
    again in a mode that leaves more. Where the device is lost the weights are read again, for one that computes. Raises
    NoRoom when no mode is left, and the errors of the lease and the operation.
    """
    lost = 0
    while True:
        with slot.lease(used_by, keep_alive) as adapter:
            device = adapter.needs().device
            try:
                return _with_others_down(slot.name, relief, operation, adapter, device)
            except DeviceLost as error:
                lost += 1
                slot.condemn(error.message)
                if lost > _MOST_LOST:
                    raise
                continue
            except OutOfMemory as error:
                # The error may refer to tensors, and those must leave the device now.
                lack = error.message
        outcome = slot.offload(reason=f"no memory for its batches on {device}")
        if outcome.result is not Result.DONE or not relief.use_less(slot.name):
            raise NoRoom(
                f"{device} has no memory left for a request to {slot.name}: {lack}",
                next_step=_UNPIN if outcome.result is Result.REFUSED else _ASK_FOR_LESS,
                retry_in_seconds=1.0,
            )


def _with_others_down(name: str, relief: Relief, operation: Callable[[Any], T], adapter: Any, device: str) -> T:
    """Run `operation`; once more after others have stepped down, where memory ran out."""
    try:
        return operation(adapter)
    except OutOfMemory as error:
        _log.warning("%s: %s", name, error.message)
    relief.free_device(device, except_for=name)
    return operation(adapter)

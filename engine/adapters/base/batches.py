"""The batch size of one encoder, as its device's memory allows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from engine.devices import empty_cache, lost_device, out_of_memory_on
from engine.devices.placement import CPU
from engine.errors import OutOfMemory
from engine.weights.libc import trim_heap

_log = logging.getLogger(__name__)

LARGEST: Final = 32
"""Inputs per forward; on a CPU larger batches are slower, because they pad more."""
TOKENS_ON_CPU: Final = 2048
"""Tokens per forward of `LARGEST` inputs, padding included; on a CPU more take more memory and no less time."""
TOKENS_ON_DEVICE: Final = 16_384
"""The same on a GPU, and where each forward reads the weights again."""
FIRST_WAIT: Final = 4
"""Calls at a size that was halved before the first try of a larger one."""
LONGEST_WAIT: Final = 128
"""Calls that this wait grows to, doubled by each call that ran out of memory; so at most 1 of 128 calls is repeated."""
BATCHES_PER_TRIM: Final = 64
"""Computations on a CPU after which the free memory between them goes back to the system.

Batches of many shapes leave holes in glibc's heap: hundreds of MiB after some thousand texts.
A return takes up to 30 ms.
"""

T = TypeVar("T")


class Batches:
    """Runs computations in batches that fit, and remembers which size did.

    A size that did not fit is halved. After some calls that a larger one would have served better it grows back: the
    next such call is a try with twice the size, and while tries fit, so is each one after it. A try that fails is
    repeated at the size that fitted, and the wait before the next one is twice as long.
    """

    def __init__(self) -> None:
        self._untrimmed = 0
        self.reset()

    def reset(self, tokens: int = TOKENS_ON_DEVICE) -> None:
        """Forget the sizes that did not fit, as after a move to a device, where `tokens` are for `LARGEST` inputs."""
        self.tokens = tokens
        self.size = LARGEST
        """Inputs per forward that the device has memory for, as far as is known."""
        self._wait = 0
        """Calls at `size` that must fit before a larger one is tried; 0 as long as nothing ran out of memory."""
        self._fitted = 0
        """Such calls since memory ran out last."""

    def run(
        self, device: str, compute: Callable[[int], T], count: int, *, alone: Callable[[], bool] = lambda: False
    ) -> T:
        """Return the result of `compute` for `count` inputs, given the batch size that it must use.

        An input of many tokens counts as several ones. Where the device has no memory for a batch, `compute` begins
        again with a smaller size. Raises OutOfMemory when one input alone is too much: at size 1, or as `alone` says of
        the last batch.
        """
        size = self._next_size(count)
        ran_out = False
        while True:
            try:
                with lost_device(device), out_of_memory_on(device):
                    result = compute(size)
            except OutOfMemory:
                if not ran_out:
                    self._hold_off()
                if size == 1 or alone():
                    raise
            else:
                if not ran_out:
                    self._note_fit(device, size, count)
                if device == CPU:
                    self._trim_at_times()
                return result
            # Not inside `except`: until it ends, the error may refer to the tensors that were computed last.
            with lost_device(device):
                empty_cache(device)
            size = self._smaller(device, size)
            ran_out = True

    def _next_size(self, count: int) -> int:
        due = self.size < LARGEST and self._fitted >= self._wait
        return max(1, min(2 * self.size if due else self.size, LARGEST, count))

    def _trim_at_times(self) -> None:
        self._untrimmed += 1
        if self._untrimmed >= BATCHES_PER_TRIM:
            self._untrimmed = 0
            trim_heap()

    def _smaller(self, device: str, size: int) -> int:
        """Return the next size after one that did not fit: the known one if this was a try, else half of it."""
        if size > self.size:
            _log.info("%s still has memory for batches of %d at most", device, self.size)
        else:
            self.size = (size + 1) // 2
            _log.warning("%s has memory for batches of %d at most", device, self.size)
        return self.size

    def _hold_off(self) -> None:
        """Put the next try off; once per call, however often its size is halved."""
        self._wait = min(max(FIRST_WAIT, 2 * self._wait), LONGEST_WAIT)
        self._fitted = 0

    def _note_fit(self, device: str, size: int, count: int) -> None:
        if size > self.size:
            self.size = size
            _log.info("%s has memory for batches of %d again", device, size)
        elif count > self.size:
            # A larger size would change nothing for a call that fits into one batch.
            self._fitted += 1

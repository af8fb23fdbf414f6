"""macOS, the BSDs and other systems: sleep is not followed."""

from __future__ import annotations

import logging
from collections.abc import Callable

_log = logging.getLogger(__name__)


class PowerEvents:
    """A source without events."""

    def follow(self, on_sleep: Callable[[], None], on_wake: Callable[[], None]) -> None:
        """Return at once."""
        _log.debug("the machine's sleep is not followed on this system")

    def stop(self) -> None:
        """Do nothing."""

"""What the machine says of its own sleep, chosen by system here and nowhere else.

`watch(on_sleep, on_wake)` calls the one before the machine sleeps and the other after it woke, both on the thread
`engine-power`, until the `Watch` that it returns is closed. Where nobody tells, it never calls.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from engine.power.watch import Watch

if sys.platform == "win32":
    from engine.power.windows import PowerEvents
elif sys.platform == "linux":
    from engine.power.linux import PowerEvents
else:
    from engine.power.other import PowerEvents

__all__ = ["Watch", "watch"]


def watch(on_sleep: Callable[[], None], on_wake: Callable[[], None]) -> Watch:
    """Begin to follow the machine's sleep; returns at once and raises nothing, whatever the system has."""
    return Watch(PowerEvents(), on_sleep, on_wake)

"""The machine's sleep and wake, from the one file for this system.

`watch(on_sleep, on_wake)` calls the one before the machine sleeps and the other after it woke, both on the thread
`engine-power`, until the `Watch` that it returns is closed. On a system without such news it never calls.
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
    """Begin to follow the machine's sleep; return at once and raise nothing on any system."""
    return Watch(PowerEvents(), on_sleep, on_wake)

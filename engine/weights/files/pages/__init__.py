"""The memory pages of file mappings; this file alone chooses the implementation for the system.

`usage(address, length)` returns how many bytes of a range are resident and how many were written to, as a `Usage`;
`give_back(address, length)` gives its pages back to the system and raises OSError. Both count in bytes; a range that is
not mapped any more counts 0. `read_in(memory)` makes all pages of a mapping resident; `warm(file)` reads a file that is
not empty into the system's cache, but not into the process; `will_need(address, length)` hints that the system should
read a range of a mapping into its cache. `backings()` lists the memory of this process that is mapped from files, as
`Backings`.
"""

from __future__ import annotations

import sys

from engine.weights.files.pages.backing import Backing, Backings
from engine.weights.files.pages.usage import Usage

if sys.platform == "win32":
    from engine.weights.files.pages.touch import read_through as warm, touch as read_in
    from engine.weights.files.pages.windows import backings, give_back, usage, will_need
elif sys.platform == "linux":
    from engine.weights.files.pages.linux import backings, give_back, read_in, usage, warm, will_need
else:
    from engine.weights.files.pages.other import backings, give_back, usage, will_need
    from engine.weights.files.pages.touch import read_through as warm, touch as read_in

__all__ = ["Backing", "Backings", "Usage", "backings", "give_back", "read_in", "usage", "warm", "will_need"]

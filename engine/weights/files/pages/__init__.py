"""What the system knows about the memory pages of one of our file mappings, chosen by system here and nowhere else.

`usage(address, length)` says how many of a range's bytes are resident and how many were written to, as a `Usage`;
`give_back(address, length)` lets the system take the pages and raises OSError. Both take bytes; a range that is not
mapped any more counts 0. `read_in(memory)` brings all pages of a mapping in; `warm(file)` brings a file that is not
empty into the system's cache and nothing of it into the process; `will_need(address, length)` has the system read a
range of a mapping into its cache meanwhile, a hint that nothing may come of. `backings()` says which memory of this
process is mapped from which file, as `Backings`.
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

"""What the system knows about the memory pages of one of our file mappings, chosen by system here and nowhere else.

`usage(address, length)` says how many of a range's bytes are resident and how many were written to, as a `Usage`;
`give_back(address, length)` lets the system take the pages and raises OSError. Both take bytes; a range that is not
mapped any more counts 0. `read_in(memory)` brings all pages of a mapping in.
"""

from __future__ import annotations

import sys

from engine.weights.pages.usage import Usage

if sys.platform == "win32":
    from engine.weights.pages.touch import touch as read_in
    from engine.weights.pages.windows import give_back, usage
elif sys.platform == "linux":
    from engine.weights.pages.linux import give_back, read_in, usage
else:
    from engine.weights.pages.other import give_back, usage
    from engine.weights.pages.touch import touch as read_in

__all__ = ["Usage", "give_back", "read_in", "usage"]

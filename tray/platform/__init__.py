"""The desktop of this system, chosen here and nowhere else.

`BACKEND` is pystray's name of its backend, and `prepare()` makes the process ready for it. `tray_problem()` returns in
words why no icon can be shown, `host_missing()` that no panel shows icons yet; both return None if all is well.
`copy_text` and `open_file` raise PilotlightError.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from tray.platform.windows import BACKEND, copy_text, host_missing, open_file, prepare, tray_problem
else:
    from tray.platform.linux import BACKEND, copy_text, host_missing, open_file, prepare, tray_problem

__all__ = ["BACKEND", "copy_text", "host_missing", "open_file", "prepare", "tray_problem"]

"""What differs between desktops, chosen here and nowhere else.

`BACKEND` names pystray's backend; `prepare()` makes the process ready for it; `tray_problem()` says in words why
no icon can be shown, or None; `host_missing()` whether nothing shows icons yet; `copy_text` and `open_file` do
what their names say and raise PilotlightError.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from tray.platform.windows import BACKEND, copy_text, host_missing, open_file, prepare, tray_problem
else:
    from tray.platform.linux import BACKEND, copy_text, host_missing, open_file, prepare, tray_problem

__all__ = ["BACKEND", "copy_text", "host_missing", "open_file", "prepare", "tray_problem"]

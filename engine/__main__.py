"""`python -m engine`: serve without a tray, as the settings say."""

from __future__ import annotations

import sys

from engine.service.service import Options, run

if __name__ == "__main__":
    if getattr(sys, "frozen", False):
        # In a packaged app the children that read pickled weights begin here.
        import multiprocessing

        multiprocessing.freeze_support()
    sys.exit(run(Options()))

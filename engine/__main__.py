"""`python -m engine`: serve without a tray, with the settings of the usual file."""

from __future__ import annotations

import sys

from engine.service.packaged import freeze_support
from engine.service.service import Options, run

if __name__ == "__main__":
    freeze_support()
    sys.exit(run(Options()))

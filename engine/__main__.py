"""`python -m engine`: serve without a tray, as the settings say."""

from __future__ import annotations

import sys

from engine.service import Options, run

if __name__ == "__main__":
    sys.exit(run(Options()))

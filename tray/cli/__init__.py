"""The commands of `pilotlight`, one file per noun; each adds its own to the parser in `main.py`."""

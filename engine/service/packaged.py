"""The first step of the program as a packaged app."""

from __future__ import annotations

from engine import paths


def freeze_support() -> None:
    """Do the work of a child process, and end, if a packaged app has started itself as one.

    The child processes that read pickled weights begin here; elsewhere, and in the app itself, this does nothing.
    """
    if paths.is_frozen():
        import multiprocessing

        multiprocessing.freeze_support()

"""The named steps that close the program."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack


class Closing(ExitStack):
    """Steps that run in reverse order at the end; a step that fails does not skip the next.

    `unfinished` names the steps that left something at work.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unfinished: list[str] = []

    def step(self, name: str, close: Callable[[float], object], timeout: float) -> None:
        """Add a step; `close` gets its limit in seconds, and returns False if something is still at work after it."""

        def run() -> None:
            if close(timeout) is False:
                self.unfinished.append(name)

        self.callback(run)

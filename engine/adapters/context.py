"""What an adapter may ask of the engine around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from engine.errors import Unavailable
from engine.operations.operation import Operation
from engine.state import Download, EncoderView

T = TypeVar("T")


def _no_other(name: str) -> Any:
    raise Unavailable(f"There is no encoder {name!r}.", next_step="Configure it, or mend `base` in the settings.")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The engine as an adapter sees it; without an engine, nothing and nobody."""

    offline: Callable[[], bool] = lambda: False
    """Whether no model hub may be asked for anything, as the settings say now."""
    tell: Callable[[Download], None] = lambda download: None
    """Say how far the download of the encoder's files is; also at its end."""
    look: Callable[[str], EncoderView] = _no_other
    """Return a snapshot of another encoder; raises UnknownEncoder."""
    ask: Callable[[str, Operation[Any], str], Any] = lambda name, operation, used_by: _no_other(name)
    """Run an operation on another encoder, for whoever `used_by` names, and wait; raises what that raises."""


ALONE = Surroundings()

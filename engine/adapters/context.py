"""The engine as an adapter may use it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.errors import Unavailable
from engine.operations.operation import Operation
from engine.state import Download, EncoderView


def _no_other(name: str) -> Any:
    raise Unavailable(f"There is no encoder {name!r}.", next_step="Configure it, or mend `base` in the settings.")


@dataclass(frozen=True, slots=True)
class AdapterContext:
    """Calls into the engine that holds the adapter; by default there is no engine and no other encoder."""

    offline: Callable[[], bool] = lambda: False
    """Return whether the current settings forbid to ask any model hub."""
    report_download: Callable[[Download], None] = lambda download: None
    """Report the progress of the download of the encoder's files; also at its end."""
    view: Callable[[str], EncoderView] = _no_other
    """Return a snapshot of another encoder by name; raises UnknownEncoder."""
    run: Callable[[str, Operation[Any], str], Any] = lambda name, operation, used_by: _no_other(name)
    """Run an operation on another encoder in the name of `used_by`, and wait; raises the errors of that encoder."""


DETACHED = AdapterContext()
"""For an adapter without an engine, as where only its `probe` is wanted."""

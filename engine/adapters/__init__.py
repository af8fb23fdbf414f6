"""Adapters: the code that loads and calls one library's kind of model, one file per kind.

Importing this package imports no model library; `adapter_class` imports one adapter's module, and that
imports its library only when it loads.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from engine.adapters.table import ADAPTERS

if TYPE_CHECKING:
    from engine.adapters.protocol import Adapter


def adapter_class(kind: str, part: str | None = None) -> type[Adapter]:
    """Return the adapter class of a kind in `table.KINDS`, and of one of its parts where it has them."""
    module, _, name = ADAPTERS[f"{kind}.{part}" if part else kind].partition(":")
    found: type[Adapter] = getattr(import_module(module), name)
    return found

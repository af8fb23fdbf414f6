"""Which kinds of encoder there are, and where the adapter of each is."""

from __future__ import annotations

from typing import Final

ADAPTERS: Final = {"dense": "engine.adapters.dense:DenseAdapter"}
"""Kind -> `module:class`, imported when the first encoder of that kind is built."""

KINDS: Final = tuple(ADAPTERS)
"""Every kind of encoder that can be configured."""

"""The lock around code that patches torch process-wide."""

from __future__ import annotations

import threading
from typing import Final

CONSTRUCTION: Final = threading.Lock()
"""Held while a model is constructed or moved between devices, never while one computes.

`from_pretrained` patches `torch.nn.Module` for the whole process while it runs, so a move at the same time can leave
parameters on the meta device.
"""

"""Models of images and texts: two towers in one checkpoint, each an encoder's component of its own."""

from __future__ import annotations

from engine.adapters.kinds.image_text.tower_adapter import ImageTowerAdapter, TextTowerAdapter

__all__ = ["ImageTowerAdapter", "TextTowerAdapter"]

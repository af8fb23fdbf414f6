"""The kinds of encoder, and the parts of those that have parts."""

from __future__ import annotations

from typing import Final

KINDS: Final = ("dense", "sparse", "multi", "rerank", "classify", "image_text", "tag", "axes", "plugin")
"""Every kind of encoder that can be configured."""

PARTS: Final = {"image_text": ("text", "image")}
"""Kinds whose encoders have parts, each with weights, a rung and a name of its own: `NAME.text`, `NAME.image`."""

BASE_KINDS: Final = ("dense", "multi")
"""Kinds of encoder that axes can be laid over, as their `base`."""

"""Packages with a plug-in, laid out as pip does."""

from __future__ import annotations

from pathlib import Path
from typing import Final

EXAMPLE: Final = '''\
class Shouter:
    """Upper case, as an encoder."""

    def __init__(self, mark="!"):
        self.mark = mark

    def load(self):
        self.table = str.maketrans("abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")

    def shout(self, texts):
        return [text.translate(self.table) + self.mark for text in texts]
'''
"""The plug-in of engine/adapters/README.md, word for word."""


def install(site: Path, name: str, code: str, *, entry: str, distribution: str | None = None) -> None:
    """Put a package `name` with one module into `site`; `entry` is its line in entry_points.txt."""
    (site / f"{name}.py").write_text(code, encoding="utf-8")
    info = site / f"{(distribution or name)}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution or name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[pilotlight.adapters]\n{entry}\n")

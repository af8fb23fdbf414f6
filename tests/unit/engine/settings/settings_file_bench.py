"""A settings file in a folder of its own."""

from __future__ import annotations

from pathlib import Path

from engine.events import Event
from engine.settings.config import Config
from engine.settings.file import SettingsFile

COMMENTED = """\
# mine, above all
[hardware]
lazy_encoders = true   # on first use
idle_timeout_seconds = 30

# the one I use
[encoders."bge.m3"]
kind = "dense"
model = "org/name"  # from the hub
"""


class Bench:
    """A settings file in a folder of its own, with what it put in force and what it refused."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.applied: list[Config] = []
        self.told: list[Event] = []
        self.settings = SettingsFile(path)

    def write(self, text: str | bytes) -> None:
        """Write as an editor does: a new file over the old one, so that no clock's resolution can hide it."""
        beside = self.path.with_suffix(".new")
        beside.write_bytes(text.encode() if isinstance(text, str) else text)
        beside.replace(self.path)

    def open(self, text: str | bytes | None = None) -> Config:
        if text is not None:
            self.write(text)
        config = self.settings.open()
        # What `watch` does, less its thread.
        self.settings._apply, self.settings._publish = self.applied.append, self.told.append
        return config

    @property
    def text(self) -> str:
        return self.path.read_bytes().decode()

"""The real Pilotlight on a desktop: its process, its files and its endpoint."""

from __future__ import annotations

import json
import sys
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

from desktop_session import Desktop, until
from status_notifier import Panel


class Program:
    """Pilotlight in a process of its own; ready when its icon and its endpoint are."""

    def __init__(self, desktop: Desktop, panel: Panel, settings: str | None = None) -> None:
        """Start it, with `settings` as the text of its settings file or with those of a first start."""
        self._desktop = desktop
        self.panel = panel
        self.settings = Path(desktop.env["XDG_CONFIG_HOME"], "pilotlight", "settings.toml")
        if settings is not None:
            self.settings.parent.mkdir()
            self.settings.write_text(settings)
        self.endpoint = Path(desktop.env["XDG_RUNTIME_DIR"], "pilotlight", "endpoint.json")
        self.process = desktop.start(sys.executable, "-m", "tray.cli", "run", "--port", "0")
        until(panel.find_icon, "the icon to register", 30)
        until(panel.rows, "the menu")
        until(self.endpoint.exists, "the discovery file")

    @property
    def log(self) -> str:
        """Its output so far."""
        return self._desktop.log(Path(sys.executable).name)

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON at `path` of the endpoint."""
        with urllib.request.urlopen(f"{self._url}{path}", timeout=10) as answer:
            return dict(json.load(answer))

    def embed(self, text: str = "a small flame") -> int:
        """Ask minilm for one embedding, as any app would; returns its length."""
        body = json.dumps({"model": "minilm", "input": text}).encode()
        request = urllib.request.Request(f"{self._url}/v1/embeddings", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return len(json.load(answer)["data"][0]["embedding"])

    def table(self, *path: str) -> dict[str, Any]:
        """Return one table of the settings file."""
        found: dict[str, Any] = tomllib.loads(self.settings.read_text())
        for key in path:
            found = found[key]
        return found

    @property
    def _url(self) -> str:
        return str(json.loads(self.endpoint.read_text())["url"])

"""A real Pilotlight in a process of its own, in folders of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]

USER_FOLDERS = (
    "HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "WIN_PD_OVERRIDE_LOCAL_APPDATA",
)  # fmt: skip
"""The variables that say where a user's files are; the last is platformdirs' own, for Windows, which reads no other."""

SETTINGS = """\
# The owner's comment.
[hardware]
lazy_encoders = true  # and another one
device = "cpu"
idle_timeout_seconds = 0

[encoders.minilm]
kind = "dense"
model = "builtin:all-MiniLM-L6-v2"
aliases = ["all-minilm"]
"""


def wait_until(true: Callable[[], Any], seconds: float, what: str) -> Any:
    """Return what `true` answers once it is truthy; fails after `seconds`."""
    give_up = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < give_up, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return found


class Home:
    """The folders of one user."""

    def __init__(self, folder: Path, settings: str = SETTINGS) -> None:
        self.folder = folder
        self.runtime = folder / "run"
        self.runtime.mkdir(parents=True, mode=0o700)
        config, state = ("local", "local") if sys.platform == "win32" else ("config", "state")
        self.settings = folder / config / "pilotlight" / "settings.toml"
        self.settings.parent.mkdir(parents=True)
        self.settings.write_text(settings, encoding="utf-8")
        self.state = folder / state / "pilotlight"
        self.discovery = self.runtime / "pilotlight" / "endpoint.json"
        self.contacts = folder / "contacts"
        ours = {
            "HOME": folder,
            "XDG_CONFIG_HOME": folder / "config",
            "XDG_STATE_HOME": folder / "state",
            "XDG_CACHE_HOME": folder / "cache",
            "XDG_RUNTIME_DIR": self.runtime,
            "WIN_PD_OVERRIDE_LOCAL_APPDATA": folder / "local",
            "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={self.runtime}/no-bus",  # nobody's sleep is delayed
            "PYTHONPATH": ROOT / "tests" / "real" / "contacts",
            "PILOTLIGHT_TEST_CONTACTS": self.contacts,
            "PYTHONUNBUFFERED": "1",
        }
        hidden = ("DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS")
        kept = {key: value for key, value in os.environ.items() if key not in hidden and not key.startswith("HF_")}
        self.environment = kept | {key: str(value) for key, value in ours.items()}

    def contacted(self) -> set[str]:
        """The hosts and paths that this user's processes connected to or looked up."""
        if not self.contacts.exists():
            return set()
        return {line.split(" ", 1)[1] for line in self.contacts.read_text(encoding="utf-8").splitlines()}

    def command(self, *arguments: str, stdin: str = "", timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run `pilotlight` with `arguments` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "tray.cli", *arguments],
            cwd=ROOT,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
            check=False,
        )


class Running:
    """One Pilotlight at work; `end` is safe to call at any time."""

    def __init__(self, home: Home, *arguments: str) -> None:
        self.home = home
        self.output = home.folder / f"output-{time.monotonic_ns()}"
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tray.cli", "run", "--headless", *(arguments or ("--port", "0"))],
                cwd=ROOT,
                env=home.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.pid = self.process.pid
        self.discovery = home.discovery
        try:
            self.endpoint: dict[str, Any] = wait_until(self._published, 30, "the discovery file")
        except BaseException:
            self.process.kill()
            self.process.wait()
            print(self.printed)
            raise
        self.url: str = self.endpoint["url"]
        self.token = Path(self.endpoint["token_path"]).read_text(encoding="ascii").strip()
        self.http = httpx.Client(
            base_url=self.url, timeout=60, trust_env=False, limits=httpx.Limits(max_connections=64)
        )
        self.authorized = {"Authorization": f"Bearer {self.token}"}

    @property
    def printed(self) -> str:
        """What it has written to the terminal."""
        return self.output.read_text(encoding="utf-8")

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def embed(self, content: Any, **fields: Any) -> httpx.Response:
        """Post `content` as the input of an embeddings request."""
        return self.http.post("/v1/embeddings", json={"model": "minilm", "input": content, **fields})

    def control(self, path: str) -> httpx.Response:
        """Post to a control route, with the token."""
        return self.http.post(f"/admin/{path}", headers=self.authorized)

    def configure(self, **hardware: Any) -> None:
        """Change keys of [hardware] as another program would."""
        answer = self.http.patch("/admin/config", json={"hardware": hardware}, headers=self.authorized)
        assert answer.status_code == 200, answer.text

    def config(self) -> dict[str, Any]:
        """What `GET /admin/config` answers."""
        found: dict[str, Any] = self.http.get("/admin/config", headers=self.authorized).json()
        return found

    def component(self, name: str = "minilm") -> dict[str, Any]:
        """One encoder in `GET /admin/components`."""
        components = self.http.get("/admin/components").json()["components"]
        return next(component for component in components if component["name"] == name)

    def wait_for(self, state: str, name: str = "minilm", seconds: float = 60) -> dict[str, Any]:
        """Return the encoder once it is in `state`."""

        def there() -> dict[str, Any] | None:
            component = self.component(name)
            return component if component["state"] == state else None

        found: dict[str, Any] = wait_until(there, seconds, f"{name} is {state}")
        return found

    def maps(self, part: str) -> list[str]:
        """The lines of the process's memory map that name a file with `part` in its path."""
        lines = Path(f"/proc/{self.pid}/maps").read_text(encoding="utf-8").splitlines()
        return [line for line in lines if part in line]

    def resident(self, path: str) -> int:
        """Bytes that the mappings of the file `path` hold resident."""
        total, ours = 0, False
        for line in Path(f"/proc/{self.pid}/smaps").read_text(encoding="utf-8").splitlines():
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                ours = line.endswith(path)
            elif ours and line.startswith("Rss:"):
                total += int(line.split()[1]) * 1024
        return total

    def rss(self) -> int:
        """Resident bytes of the whole process."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def signal(self, number: signal.Signals, seconds: float = 10) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def end(self) -> None:
        """Close it if it still runs; kills it when that takes too long."""
        self.http.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _published(self) -> dict[str, Any] | None:
        assert self.process.poll() is None, self.printed
        try:
            found: dict[str, Any] = json.loads(self.discovery.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if found["pid"] == self.pid else None

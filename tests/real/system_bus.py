"""A system bus of a test's own, which may go away and come back at the same address."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

CONFIG = Path(__file__).resolve().parents[1] / "desktop" / "bus.conf"
MISSING = (
    "" if shutil.which("dbus-daemon") else "no dbus-daemon here: sudo apt-get install --no-install-recommends dbus"
)


class SystemBus:
    """One dbus-daemon; `address` is what DBUS_SYSTEM_BUS_ADDRESS takes."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="bus-")  # a socket's path must be short
        self.address = f"unix:path={self._folder.name}/bus"
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the daemon and wait until it listens."""
        reading, writing = os.pipe()
        try:
            self._daemon = subprocess.Popen(
                [
                    *("dbus-daemon", f"--config-file={CONFIG}", f"--address={self.address}"),
                    *("--nofork", "--nopidfile", f"--print-address={writing}"),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=(writing,),
            )
        finally:
            os.close(writing)
        with os.fdopen(reading) as answer:
            assert answer.readline().startswith("unix:"), "dbus-daemon did not start"

    def stop(self) -> None:
        """End the daemon; safe to call at any time."""
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.wait(10)
            self._daemon = None

    def close(self) -> None:
        """End the daemon and leave nothing behind."""
        self.stop()
        self._folder.cleanup()

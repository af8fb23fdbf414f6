"""System packages of Debian and Ubuntu for a tray and for the desktop tests, and apt-get. Used by environment.py."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

PYTHON_GI = Path("/usr/lib/python3/dist-packages/gi")
"""Debian's PyGObject, built for Debian's own Python."""

TRAY = "gir1.2-gtk-3.0 gir1.2-ayatanaappindicator3-0.1 adwaita-icon-theme librsvg2-common dbus".split()
DESKTOP_TESTS = (
    "xvfb xdotool x11-apps x11-utils imagemagick dbus-x11 libglib2.0-bin xfce4-panel xfwm4 xfce4-notifyd dunst"
).split()
GI_LINKED = ["python3-gi"]
GI_BUILT = "libgirepository1.0-dev libcairo2-dev pkg-config gcc".split()


def say(text: str) -> None:
    """Print a line about the set-up on standard error."""
    print(f"dev.py: {text}", file=sys.stderr, flush=True)


def is_known() -> bool:
    """Return whether the packages of this system are known here."""
    return Path("/etc/debian_version").exists() and shutil.which("dpkg-query") is not None


def missing(packages: list[str]) -> list[str]:
    """Return the packages that are not installed."""
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *packages]
    shown = subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()
    return [package for package in packages if f"{package} installed" not in shown]


def by_hand(packages: list[str]) -> str:
    """Return the command line that installs the packages."""
    return f"sudo apt-get update && sudo {shlex.join(_install_command(packages))}"


def install(packages: list[str], what: str) -> bool:
    """Install the packages if that needs no password; return whether it worked."""
    if not shutil.which("apt-get"):
        return False
    rights = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if rights and not (shutil.which("sudo") and subprocess.run([*rights, "true"], capture_output=True).returncode == 0):
        return False
    say(f"installing {what} by apt-get: {' '.join(packages)}")
    for command in (["apt-get", "update"], _install_command(packages)):
        quiet = [*rights, "env", "DEBIAN_FRONTEND=noninteractive", *command, "-qq", "-o=Dpkg::Use-Pty=0"]
        result = subprocess.run(quiet, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode != 0:
        sys.stderr.write(result.stdout[-2000:])
    return result.returncode == 0


def _install_command(packages: list[str]) -> list[str]:
    return ["apt-get", "install", "--yes", "--no-install-recommends", *packages]

"""Start of Pilotlight with its tray in a desktop session (Xvfb, a real panel), beside a start without it.

Prints, as medians: seconds from process start until HTTP answers and until the icon is registered on the session
bus, RSS then, and CPU while idle.

    python3 build/dev.py bench tray [-- --rounds 3 --idle 20]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import urllib.request
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "desktop")]

from desktop_session import Desktop  # noqa: E402
from status_notifier import Panel  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle", type=float, default=20.0, help="seconds over which idle CPU is taken")
    options = parser.parse_args()
    rows: dict[str, list[dict[str, float]]] = {"tray": [], "headless": []}
    for _ in range(options.rounds):
        for name in rows:
            with Desktop(panel=True) as desktop:
                time.sleep(2)  # the panel's own start is not ours
                rows[name].append(measure(desktop, name == "headless", options.idle))
    for name, found in rows.items():
        medians = {key: statistics.median(row[key] for row in found) for key in found[0]}
        print(f"{name:10}" + "".join(f"{key} {value:.3f}   " for key, value in medians.items()))


def measure(desktop: Desktop, headless: bool, idle: float) -> dict[str, float]:
    panel = Panel(desktop.env["DBUS_SESSION_BUS_ADDRESS"])
    endpoint = Path(desktop.env["XDG_RUNTIME_DIR"], "pilotlight", "endpoint.json")
    began = time.monotonic()
    process = desktop.start(sys.executable, "-m", "tray.cli", "run", "--port", "0", *["--headless"] * headless)
    found: dict[str, float] = {}
    while len(found) < (1 if headless else 2):
        if "HTTP s" not in found and answers(endpoint):
            found["HTTP s"] = time.monotonic() - began
        if not headless and "icon s" not in found and panel.find_icon():
            found["icon s"] = time.monotonic() - began
        time.sleep(0.01)
    panel.close()
    time.sleep(2)
    ours = psutil.Process(process.pid)
    found["RSS MiB"] = ours.memory_info().rss / 2**20
    before = sum(ours.cpu_times()[:2])
    time.sleep(idle)
    found["idle CPU %"] = 100 * (sum(ours.cpu_times()[:2]) - before) / idle
    return found


def answers(endpoint: Path) -> bool:
    try:
        with urllib.request.urlopen(json.loads(endpoint.read_text())["url"] + "/health", timeout=1) as response:
            return bool(response.status == 200)
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    main()

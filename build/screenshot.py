"""Make assets/menu.png, the README's picture: the real menu of the real program in a real panel.

Run it with the development environment: .venv/bin/python build/screenshot.py
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "desktop")]

from desktop_session import Desktop, MissingTools, OpenMenu, open_menu, place_of, until  # noqa: E402
from PIL import Image  # noqa: E402
from status_notifier import Panel  # noqa: E402

from tray.picture import EMBER  # noqa: E402

PICTURE = ROOT / "assets" / "menu.png"
SCALE = 2  # as a sharp screen shows it
WALLPAPER = (38, 66, 92)
MARGIN = 14 * SCALE


def main() -> int:
    try:
        with Desktop(panel=True, size=(1400, 1000), scale=SCALE) as desktop:
            picture = take(desktop)
    except MissingTools as error:
        print(error, file=sys.stderr)
        return 1
    picture.quantize(128, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"{PICTURE.relative_to(ROOT)}: {picture.width} x {picture.height}, {PICTURE.stat().st_size / 1024:.0f} KiB")
    return 0


def take(desktop: Desktop) -> Image.Image:
    """Start the program, wake its encoder, open the menu and return what the screen shows there."""
    desktop.paint(WALLPAPER)
    desktop.start(sys.executable, "-m", "tray.cli", "run", "--port", "0")
    endpoint = Path(desktop.env["XDG_RUNTIME_DIR"], "pilotlight", "endpoint.json")
    panel = Panel(desktop.env["DBUS_SESSION_BUS_ADDRESS"])
    try:
        until(panel.find_icon, "the icon", 20)
        until(endpoint.exists, "the discovery file")
        embed(json.loads(endpoint.read_text())["url"])
        icon = until(lambda: place_of(EMBER, desktop.screenshot()), "the lit flame in the panel")
        menu = open_menu(desktop, icon)
        desktop.point(20, 20)  # no row is highlighted then
        return cropped(menu, desktop.screenshot())
    finally:
        panel.close()


def embed(url: str) -> None:
    """Ask for an embedding, so that the encoder wakes."""
    body = json.dumps({"model": "minilm", "input": "a small flame"}).encode()
    request = urllib.request.Request(f"{url}/v1/embeddings", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        answer.read()


def cropped(menu: OpenMenu, screen: Image.Image) -> Image.Image:
    """The menu with the panel's end below it and a little of the desktop around it."""
    left, top, _right, _bottom = menu.box
    return screen.crop((left - MARGIN, top - MARGIN, screen.width, screen.height))


if __name__ == "__main__":
    sys.exit(main())

"""Make assets/menu.png, the README's picture: the real menu of the real program in a real panel, a submenu open.

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

from tray.icon.picture import EMBER  # noqa: E402

PICTURE = ROOT / "assets" / "menu.png"
SCALE = 2  # as a sharp screen shows it
WALLPAPER = (38, 66, 92)
MARGIN = 14 * SCALE


def main() -> int:
    try:
        with Desktop(panel=True, size=(1900, 1300), scale=SCALE) as desktop:
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
        url = json.loads(endpoint.read_text())["url"]
        embed(url)
        step_down_and_back(panel, url)
        icon = until(lambda: place_of(EMBER, desktop.screenshot()), "the lit flame in the panel")
        menu = open_menu(desktop, icon)
        submenu = menu.open_submenu(desktop, panel.labels(), "minilm")
        return cropped(menu, submenu, desktop.screenshot())
    finally:
        panel.close()


def embed(url: str) -> None:
    """Ask for an embedding, so that the encoder wakes."""
    body = json.dumps({"model": "minilm", "input": "a small flame"}).encode()
    request = urllib.request.Request(f"{url}/v1/embeddings", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        answer.read()


def step_down_and_back(panel: Panel, url: str) -> None:
    """Take the encoder down and up once, so that every figure of its submenu is known."""
    panel.click("minilm", "Step down to RAM")
    until(lambda: "in RAM" in panel.row("minilm")["label"], "the step down")
    embed(url)
    until(lambda: "steps down" in panel.row("minilm")["label"], "the encoder to be back")


def cropped(menu: OpenMenu, submenu: OpenMenu, screen: Image.Image) -> Image.Image:
    """Both menus with the panel's end below them and a little of the desktop around them."""
    left, top = (min(menu.box[side], submenu.box[side]) for side in (0, 1))
    return screen.crop((left - MARGIN, top - MARGIN, screen.width, screen.height))


if __name__ == "__main__":
    sys.exit(main())

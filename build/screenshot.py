"""assets/menu.png, the README's picture: the menu of the real program in a real panel, with an open submenu.

Run it with the development environment: .venv/bin/python build/screenshot.py
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "desktop")]

from desktop_session import Desktop, MissingTools, OpenMenu, open_menu, place_of, until  # noqa: E402
from PIL import Image  # noqa: E402
from program import Program  # noqa: E402
from status_notifier import Panel  # noqa: E402

from tray.icon.picture import EMBER  # noqa: E402

PICTURE = ROOT / "assets" / "menu.png"
SCALE = 2  # as on a screen of high density
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
    """Start the program, wake its encoder, open the menu and return a picture of it."""
    desktop.paint(WALLPAPER)
    with Panel(desktop.env["DBUS_SESSION_BUS_ADDRESS"]) as panel:
        program = Program(desktop, panel)
        program.embed()
        step_down_and_back(program)
        icon = until(lambda: place_of(EMBER, desktop.screenshot()), "the lit flame in the panel")
        menu = open_menu(desktop, icon)
        submenu = menu.open_submenu(desktop, panel.labels(), "minilm")
        return cropped(menu, submenu, desktop.screenshot())


def step_down_and_back(program: Program) -> None:
    """Step the encoder down and wake it once, so that every figure of its submenu is known."""
    program.panel.click("minilm", "Step down to RAM")
    until(lambda: "in RAM" in program.panel.row("minilm")["label"], "the step down")
    program.embed()
    until(lambda: "steps down" in program.panel.row("minilm")["label"], "the encoder to be back")


def cropped(menu: OpenMenu, submenu: OpenMenu, screen: Image.Image) -> Image.Image:
    """Return both menus, with the panel below and a margin of the desktop around them."""
    left, top = (min(menu.box[side], submenu.box[side]) for side in (0, 1))
    return screen.crop((left - MARGIN, top - MARGIN, screen.width, screen.height))


if __name__ == "__main__":
    sys.exit(main())

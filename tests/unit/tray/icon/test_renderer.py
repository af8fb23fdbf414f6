"""Texts as each desktop must be given them; the icon itself is tested on a desktop."""

from __future__ import annotations

import pytest

from tray.icon import linux, windows
from tray.icon.renderer import clipped
from tray.menu.item import Item


def test_a_row_is_as_wide_as_its_longer_texts_on_linux_and_keeps_its_ampersands_on_windows() -> None:
    row = Item("you & me", room=12)
    assert linux.written(row) == "you & me\u2002\u2002\u2002\u2002"
    assert windows.written(row) == "you && me"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("", ""), ("abcd", "abcd"), ("abcde", "abc…"), ("ab🔥", "ab🔥"), ("ab🔥c", "ab…"), ("🔥🔥a", "🔥…")],
)
def test_a_text_is_cut_where_windows_counts_too_many_units(text: str, shown: str) -> None:
    assert clipped(text, 4) == shown

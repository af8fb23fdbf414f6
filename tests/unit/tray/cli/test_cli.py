"""The command `pilotlight` itself, before any of its commands runs."""

from __future__ import annotations

import multiprocessing
import sys

import pytest

from tray.cli import main as cli


@pytest.mark.parametrize("frozen", [True, False])
def test_in_a_packaged_app_the_command_is_where_children_begin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], frozen: bool
) -> None:
    begun: list[str] = []
    monkeypatch.setattr(sys, "frozen", frozen, raising=False)
    monkeypatch.setattr(multiprocessing, "freeze_support", lambda: begun.append("child"))
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert begun == ["child"] * frozen

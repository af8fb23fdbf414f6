"""What stands in the log file."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from engine import paths
from engine.service.logs import logging_on


def test_a_line_that_names_a_file_whose_name_is_no_text_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "state_folder", lambda: tmp_path)
    monkeypatch.setattr(sys, "stderr", None)  # the file alone: a terminal spells such names out by itself
    with logging_on():
        logging.getLogger("engine.test").warning("not mapped: /r\udce9sum\udce9")
    assert "not mapped: /r\\udce9sum\\udce9" in (tmp_path / "pilotlight.log").read_text(encoding="utf-8")

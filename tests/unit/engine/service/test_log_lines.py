"""The lines of the log: how long they are, how often they come, and what is not in them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import paths
from engine.service import logs
from engine.service.log_lines import MOST_CHARACTERS, Lines, Repeats
from engine.service.logs import logging_on


def record(
    message: str = "x", *args: object, name: str = "engine.slot", at: float = 0.0, line: int = 1
) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.WARNING, "/a.py", line, message, args, None)
    made.created = at
    return made


def failing(work: Callable[[], object], name: str = "engine.slot") -> logging.LogRecord:
    made = record("it failed", name=name)
    try:
        work()
    except Exception:  # noqa: BLE001 - any error is logged
        made.exc_info = sys.exc_info()
    return made


def deep(levels: int) -> object:
    return deep(levels - 1) if levels else {}["a text"]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, in a folder of the test's own; the root logger is as it was afterwards."""
    monkeypatch.setattr(paths, "state_folder", lambda: tmp_path)
    root = logging.getLogger()
    monkeypatch.setattr(root, "level", root.level)
    return tmp_path / "pilotlight.log"


@pytest.mark.parametrize(
    "name", ["a\nb", "a\r\n2026-01-01 ERROR forged", "\x1b[2J", "a\u2028b", "\u202etxt", "\ud800", "\0"]
)
def test_a_record_is_one_line_without_control_characters(name: str) -> None:
    line = Lines().format(record("no encoder %s", name))
    assert line.isprintable()
    assert line.encode("utf-8")


def test_a_line_has_a_limit_and_says_how_much_is_missing() -> None:
    line = Lines().format(record("no encoder %s", "\n" * 1_000_000 + "x"))
    assert len(line) < MOST_CHARACTERS + 50
    assert line.endswith("more characters)")


def test_a_traceback_is_short_and_comes_once() -> None:
    lines = Lines()
    first = lines.format(failing(lambda: deep(200)))
    assert 5 < len(first.splitlines()) < 30
    assert "KeyError: 'a text'" in first
    for _ in range(3):
        again = lines.format(failing(lambda: deep(200)))
        assert len(again.splitlines()) == 1
        assert "KeyError" in again
    assert len(lines.format(failing(lambda: 1 // 0)).splitlines()) > 1


def test_an_error_of_a_request_does_not_quote_it() -> None:
    for name in ("engine.http.app", "uvicorn.error", "engine.adapters.kinds.plugin"):
        told = Lines().format(failing(lambda: deep(1), name=name))
        assert "KeyError" in told
        assert "'a text'" not in told.replace('{}["a text"]', "")
        assert ": division by zero" not in told
    assert "by zero" in Lines().format(failing(lambda: 1 // 0, name="engine.http.app"))


def test_a_cause_is_told_after_what_it_caused() -> None:
    def both() -> None:
        try:
            deep(1)
        except KeyError as error:
            raise ValueError("no model") from error

    told = Lines().format(failing(both))
    assert told.index("ValueError: no model") < told.index("KeyError")


def test_a_chain_of_causes_has_an_end() -> None:
    def chained(levels: int) -> None:
        try:
            chained(levels - 1) if levels else deep(1)
        except Exception as error:
            raise ValueError(levels) from error

    assert len(Lines().format(failing(lambda: chained(50))).splitlines()) < 120


def test_a_library_says_one_thing_five_times_and_again_after_ten_minutes() -> None:
    filter_ = Repeats()
    warned = [bool(filter_.filter(record("text %s", n, name="transformers.x", at=n / 100))) for n in range(1000)]
    assert sum(warned) == 5
    assert filter_.filter(record("text", name="transformers.x", line=2))
    assert filter_.filter(record("text", name="transformers.x", at=700.0))
    assert all(filter_.filter(record("text", at=1.0)) for _ in range(100)), "our own lines are all written"


def test_warnings_of_python_are_told_apart_by_their_place() -> None:
    filter_ = Repeats()
    texts = [f"/lib/{name}.py:7: UserWarning: text {number}" for name in "ab" for number in range(20)]
    assert sum(bool(filter_.filter(record("%s", text, name="py.warnings"))) for text in texts) == 10


def test_the_log_has_two_files_of_limited_size(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MOST_BYTES", 10_000)
    log.write_bytes(b"before\n" * 3000)
    with logging_on():
        for number in range(2000):
            logging.getLogger("engine.slot").warning("line %d", number)
    files = sorted(log.parent.iterdir())
    assert [file.name for file in files] == ["pilotlight.log", "pilotlight.log.1"]
    assert all(0 < file.stat().st_size <= 10_000 for file in files)
    assert "line 1999" in log.read_text(encoding="utf-8")


def test_a_new_file_has_each_traceback_again(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MOST_BYTES", 5_000)
    with logging_on():
        for _ in range(200):
            logging.getLogger().handle(failing(lambda: deep(3)))
    assert "in deep: " in log.read_text(encoding="utf-8")


def test_a_full_disk_prints_no_traceback_for_each_line(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(text: str) -> None:
        raise OSError(28, "No space left on device")

    with logging_on():
        (handler,) = (one for one in logging.getLogger().handlers if isinstance(one, logs._File))
        monkeypatch.setattr(handler.stream, "write", full)
        logging.getLogger("engine.slot").warning("a line")
    assert "Traceback" not in capsys.readouterr().err

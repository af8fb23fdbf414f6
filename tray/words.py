"""Figures in words: sizes, durations, countdowns and timeouts, each rounded by at most 5 %."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from engine.settings.budget import Budget
from engine.state import Download
from engine.units import GIB, KIB, MIB

UNKNOWN: Final = "unknown"
"""The word for a missing figure, which must never read as 0."""

LONGEST: Final = 60
"""Characters that one row shows of a text from elsewhere, such as an error."""

LONGEST_NAME: Final = 32
"""Characters of an encoder's name that one row shows."""

_STEPS: Final = ((120, 1), (600, 5), (1200, 30), (7200, 60), (72000, 300), (math.inf, 3600))
"""Pairs of seconds: a time up to the first is counted down in steps of the second; an unchanged row costs nothing."""


def size(count: int) -> str:
    """Return bytes as `3.4 MiB`."""
    return " ".join(_sized(count))


def known_size(count: int | None) -> str:
    """Return bytes as `size` does, None as unknown."""
    return UNKNOWN if count is None else size(count)


def share(part: int, whole: int | None, between: str = " / ") -> str:
    """Return bytes of bytes as `61 / 87 MiB`, or the part alone if the whole is unknown."""
    if whole is None:
        return size(part)
    (some, unit), (everything, whole_unit) = _sized(part), _sized(whole)
    first = some if unit == whole_unit or part == 0 else f"{some} {unit}"
    return f"{first}{between}{everything} {whole_unit}"


def download(progress: Download) -> str:
    """Return the progress of a download as `downloading 120 of 470 MiB`."""
    return f"downloading {share(progress.done, progress.total, ' of ')}"


def duration(seconds: float) -> str:
    """Return a duration as `0.8 ms`, `16 ms`, `0.31 s` or `12.3 s`."""
    if seconds < 0.1:
        milliseconds = seconds * 1000
        return f"{round(milliseconds, 2 if milliseconds < 1 else 1 if milliseconds < 10 else 0):g} ms"
    return f"{round(seconds, 2 if seconds < 10 else 1):g} s"


def countdown(seconds: float) -> str:
    """Return the time left as `59 s`, `2 min 5 s`, `15 min` or `4 h`; it is rounded up to a step that suits it."""
    step = next(step for below, step in _STEPS if seconds <= below)
    left = max(0, math.ceil(seconds / step) * step)
    if left < 120:
        return f"{left} s"
    (large, unit), (small, rest) = ((3600, "h"), (60, "min")) if left >= 7200 else ((60, "min"), (1, "s"))
    return f"{left // large} {unit}" + (f" {left % large // small} {rest}" if left % large else "")


def timeout(seconds: float) -> str:
    """Return a timeout setting as `Never`, `30 s`, `15 min` or `4 h`."""
    if seconds == 0:
        return "Never"
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:g} s"


def budget(max_vram: str) -> str:
    """Return a `max_vram` setting as `None`, `At most 4 GiB` or `All but 1 GiB of what is free`; a list unchanged."""
    value = Budget.parse(max_vram)
    if value.listed:
        return clipped(max_vram)
    if value.each_gpu < 0:
        return f"All but {-value.each_gpu:g} GiB of what is free"
    return f"At most {value.each_gpu:g} GiB" if value.each_gpu else "None"


def clipped(text: str, length: int = LONGEST) -> str:
    """Return `text` as one line of at most `length` characters, its end cut off."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def tail(text: str, length: int) -> str:
    """Return `text` as one line of at most `length` characters, its start cut off, for paths."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"…{line[len(line) - length + 1 :]}"


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Return rows of equally many cells as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _sized(count: int) -> tuple[str, str]:
    if 0 < count < MIB:
        return f"{max(1, round(count / KIB))}", "KiB"
    length, unit = (MIB, "MiB") if count < GIB else (GIB, "GiB")
    number = count / length
    return f"{number:.1f}" if 0 < number < 9.95 else f"{number:.0f}", unit

"""Figures in words: short, and true within 5 %."""

from __future__ import annotations

import re

import pytest

from tray import words
from tray.words import GIB, KIB, MIB

UNITS = {"KiB": KIB, "MiB": MIB, "GiB": GIB, "ms": 0.001, "s": 1.0}


def told(text: str) -> float:
    """The figure in a text, in its base unit."""
    number, unit = text.split()
    return float(number) * UNITS[unit]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 MiB"),
        (1, "1 KiB"),
        (400 * KIB, "400 KiB"),
        (MIB, "1.0 MiB"),
        (87 * MIB, "87 MiB"),
        (GIB - MIB, "1023 MiB"),
        (int(2.27 * GIB), "2.3 GiB"),
        (24 * GIB, "24 GiB"),
    ],
)
def test_a_size_is_short(count: int, text: str) -> None:
    assert words.size(count) == text


def test_what_nobody_says_is_unknown_and_not_zero() -> None:
    assert (words.known_size(None), words.known_size(0), words.known_size(MIB)) == ("unknown", "0 MiB", "1.0 MiB")


@pytest.mark.parametrize("power", range(14, 40))
def test_a_size_is_told_within_5_percent(power: int) -> None:
    for part in range(64):
        count = 2**power + part * 2**power // 64
        assert told(words.size(count)) == pytest.approx(count, rel=0.05)


@pytest.mark.parametrize("power", range(-22, 10))
def test_a_duration_is_told_within_5_percent(power: int) -> None:
    for part in range(64):
        seconds = 2.0**power * (1 + part / 64)
        if seconds > 1e-4:
            text = words.duration(seconds)
            assert told(text) == pytest.approx(seconds, rel=0.05), text
            assert len(re.sub(r"\D", "", text)) <= 4, text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0008, "0.8 ms"), (0.0024, "2.4 ms"), (0.016, "16 ms"), (0.31, "0.31 s"), (1.98, "1.98 s"), (12.34, "12.3 s")],
)
def test_a_duration_is_short(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (61 * MIB, 87 * MIB, "61 / 87 MiB"),
        (0, 87 * MIB, "0 / 87 MiB"),
        (40 * KIB, 87 * MIB, "40 KiB / 87 MiB"),
        (512 * MIB, int(2.27 * GIB), "512 MiB / 2.3 GiB"),
        (0, int(2.27 * GIB), "0 / 2.3 GiB"),
        (61 * MIB, None, "61 MiB"),
    ],
)
def test_a_share_names_a_common_unit_once(part: int, whole: int | None, text: str) -> None:
    assert words.share(part, whole) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1.0, "0 s"),
        (0.2, "1 s"),
        (119.0, "119 s"),
        (120.0, "2 min"),
        (121.0, "2 min 5 s"),
        (841.0, "14 min 30 s"),
        (900.0, "15 min"),
        (1201.0, "21 min"),
        (7199.0, "2 h"),
        (7201.0, "2 h 5 min"),
        (14400.0, "4 h"),
        (86400.0, "24 h"),
    ],
)
def test_a_countdown_rounds_up(seconds: float, text: str) -> None:
    assert words.countdown(seconds) == text


def test_a_countdown_is_told_within_5_percent_or_a_second() -> None:
    for seconds in [*range(8000), *range(8000, 400_000, 97)]:
        parts = words.countdown(seconds + 0.5).split()
        left = sum(
            int(n) * {"h": 3600, "min": 60, "s": 1}[unit] for n, unit in zip(parts[::2], parts[1::2], strict=True)
        )
        assert seconds + 0.5 <= left <= max(1.05 * (seconds + 0.5), seconds + 1)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "Never"), (2.5, "2.5 s"), (45.0, "45 s"), (90.0, "90 s"), (900.0, "15 min")]
)
def test_a_timeout_is_in_its_largest_whole_unit(seconds: float, text: str) -> None:
    assert words.timeout(seconds) == text


def test_texts_from_elsewhere_become_one_line_that_keeps_its_start_or_its_end() -> None:
    assert words.clipped("a\n b") == "a b"
    assert words.clipped("x" * 99) == "x" * 59 + "…"
    assert words.tail("a\n b", 10) == "a b"
    assert words.tail("/deep/folder/model", 8) == "…r/model"
    assert len(words.tail("x" * 99, 8)) == 8

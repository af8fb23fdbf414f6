"""Bytes in words, as errors and notes spell them."""

from __future__ import annotations

import pytest

from engine.units import GIB, MIB, in_words


@pytest.mark.parametrize(
    ("nbytes", "decimals", "words"),
    [
        (0, 1, "0.0 MiB"),
        (int(86.64 * MIB), 1, "86.6 MiB"),
        (int(86.64 * MIB), 0, "87 MiB"),
        (GIB - 1, 1, "1024.0 MiB"),
        (GIB, 1, "1.00 GiB"),
        (GIB + GIB // 4, 0, "1.25 GiB"),
    ],
)
def test_bytes_are_spelled_in_the_unit_of_their_size(nbytes: int, decimals: int, words: str) -> None:
    assert in_words(nbytes, decimals) == words

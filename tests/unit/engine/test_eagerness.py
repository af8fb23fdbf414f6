"""How far up an encoder goes unasked."""

from __future__ import annotations

import pytest

from engine.config import EncoderConfig, Hardware
from engine.eagerness import Eagerness


@pytest.mark.parametrize(
    ("lazy", "eager", "home", "expected"),
    [
        (True, False, "mapped", Eagerness.LAZY),
        (True, True, "mapped", Eagerness.TO_RAM),
        (True, True, "pinned", Eagerness.TO_RAM),
        (True, True, "disk", Eagerness.LAZY),
        (False, True, "disk", Eagerness.TO_DEVICE),
        (False, False, "mapped", Eagerness.TO_DEVICE),
    ],
)
def test_what_waits_on_the_disk_is_never_read_into_ram_ahead(
    lazy: bool, eager: bool, home: str, expected: Eagerness
) -> None:
    silent = EncoderConfig("a", "dense", "org/name", home=home)
    assert Eagerness.of(silent, Hardware(lazy_encoders=lazy, eager_load=eager)) is expected
    own = EncoderConfig("a", "dense", "org/name", home=home, lazy_encoders=lazy, eager_load=eager)
    assert Eagerness.of(own, Hardware(lazy_encoders=not lazy, eager_load=not eager)) is expected
